"""Several processes share one benchmark: each takes its part of the pictures, and each has all records in the end."""

import os
import time
from collections.abc import Sequence

import torch

from nulltext.evaluation.results import Record, Store

SECONDS_BETWEEN_LOOKS = 0.5


def rank_and_world() -> tuple[int, int]:
    """The number of this process and how many there are, as torchrun says; 0 and 1 for one alone."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def own_device(name: str) -> str:
    """The device of this process: of several on one machine each takes a GPU of its own."""
    if rank_and_world()[1] == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def gather_records(store: Store, names: Sequence[str]) -> dict[str, Record]:
    """The records of all edits; waits for those that other processes still make."""
    records = dict[str, Record]()
    while missing := [name for name in names if name not in records]:
        found = {name: store.record(name) for name in missing}
        records |= {name: record for name, record in found.items() if record is not None}
        if len(records) < len(names):
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return {name: records[name] for name in names}
