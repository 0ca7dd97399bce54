"""Which pictures are inverted together, and which are left to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from nulltext.data.frame import Frame
from nulltext.data.metadata import Row
from nulltext.inversion import InversionMethod
from nulltext.models.base import DiffusionModel
from nulltext.runs.finished import expected_facts, finished_names
from nulltext.runs.memory import free_memory, pictures_together


@dataclass(frozen=True)
class Source:
    """A picture that was found and can be decoded, without its pixels."""

    path: Path
    name: str
    prompt: str
    prompt_source: str  # where the prompt was found
    size: tuple[int, int]  # (height, width) in the file, upright
    row: Row
    sha256: str  # hex digest of the file's bytes


def group_by_size(sources: Sequence[Source], frame: Frame, batch_size: int) -> list[list[Source]]:
    """Groups of at most ``batch_size`` pictures whose results have one size, in order of appearance."""
    sizes = [frame.target(source.size[1], source.size[0]) for source in sources]
    first = {size: index for index, size in reversed(list(enumerate(sizes)))}
    order = sorted(range(len(sources)), key=lambda index: (first[sizes[index]], index))
    groups: list[list[Source]] = []
    for _, members in groupby(order, key=lambda index: sizes[index]):
        same = [sources[index] for index in members]
        groups += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return groups


def fitting_batch(model: DiffusionModel, sources: Sequence[Source], frame: Frame, processes: int) -> int:
    """As many pictures as the free memory allows at once; processes of one machine share its main memory."""
    if len(sources) < 2:
        return 1
    free = free_memory(model.device)
    if model.device.type == "cpu":
        free //= processes
    largest = max((frame.target(s.size[1], s.size[0]) for s in sources), key=math.prod)
    return pictures_together(model, largest, free)


def split_finished(
    folder: Path, sources: Sequence[Source], frame: Frame, model: DiffusionModel, method: InversionMethod
) -> tuple[list[Source], set[str]]:
    """The sources, renamed where another picture of the run folder has their name, and the names that are finished."""
    sizes = {s.name: frame.target(s.size[1], s.size[0]) for s in sources}
    facts = {size: expected_facts(model, method, size) for size in set(sizes.values())}
    wanted = {
        s.name: {
            **facts[sizes[s.name]],
            "source_sha256": s.sha256,
            "prompt": s.prompt,
            "crop": frame.crop,
        }
        for s in sources
    }
    done, taken = finished_names(folder, wanted)
    renamed = [replace(s, name=f"{s.name}-{s.sha256[:8]}") if s.name in taken else s for s in sources]
    return renamed, done


def match(identity: Mapping[str, Any], sources: Sequence[Source]) -> Source | None:
    """The picture of a checkpoint, under the name that it has there; its file may have been renamed since."""
    same = [s for s in sources if (s.sha256, s.prompt) == (identity["sha256"], identity["prompt"])]
    same.sort(key=lambda source: source.name != identity["name"])
    return replace(same[0], name=identity["name"]) if same else None
