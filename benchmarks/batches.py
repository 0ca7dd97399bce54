"""Throughput: the default over pictures that go through their timesteps together, against one by one."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import device_words, measure_apart, median_seconds
from methods import DEFAULT, Outcome, run_ours
from subjects import PHOTOGRAPHS, Subject, pictures_of, subject_of
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError
from nulltext.memory import peak_memory


@dataclass
class Batch:
    """The same pictures, so many at a time; times and counts are of the inversions alone."""

    size: int
    pictures: int
    seconds: float  # a picture
    evaluations: float  # UNet forwards and backwards a picture
    peak_bytes: int
    device: str


def sizes(words: str) -> tuple[int, ...]:
    """``1,2,4,8`` in order, and 1 in any case: what the others are compared with."""
    found = {int(word) for word in words.split(",") if word.isdecimal()}
    if len(found) != len(words.split(",")) or 0 in found:
        raise argparse.ArgumentTypeError(f"give whole numbers with commas, such as 1,2,4,8, not {words!r}")
    return tuple(sorted({1, *found}))


def together(subjects: Sequence[Subject]) -> Subject:
    """Several pictures as one subject."""
    cond = TextEmbedding.cat([s.cond for s in subjects])
    return Subject(torch.cat([s.z_0 for s in subjects]), cond, subjects[0].null)


def measure_batch(options: argparse.Namespace, name: str) -> tuple[Batch, dict[str, Tensor]]:
    """Inverts the pictures in batches of one size, after a warm-up of two steps.

    Returns:
        The numbers, and under ``null`` (T, pictures, L, d) and ``z_0`` (pictures, 4, h, w) what was learned.
    """
    size = int(name)
    backbone = Backbone.from_pretrained(options.model, precision=options.precision, device=options.device)
    pictures = pictures_of(options, backbone.default_size)
    subjects = [subject_of(backbone, *picture) for picture in pictures]
    groups = [together(subjects[k : k + size]) for k in range(0, len(subjects), size)]
    run_ours(backbone, groups[0], 2)
    backbone.forwards = backbone.backwards = 0
    outcomes: list[Outcome] = []

    def work() -> None:
        outcomes[:] = [run_ours(backbone, group, DEFAULT.steps) for group in groups]

    seconds = median_seconds(backbone.device, work, options.repeats)
    evaluations = (backbone.forwards + backbone.backwards) / options.repeats
    n = len(subjects)
    found = Batch(
        size, n, seconds / n, evaluations / n, peak_memory(backbone.device), device_words(backbone.device)
    )
    learned = {
        "null": torch.cat([o.null for o in outcomes], dim=1),
        "z_0": torch.cat([o.z_0 for o in outcomes]),
    }
    return found, learned


def apart(one: Path, other: Path) -> dict[str, float]:
    """The largest difference of the embeddings and of the end latents."""
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    return {name: float((a[name] - b[name]).abs().max()) for name in ("null", "z_0")}


def compare_batches(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """All batch sizes over the same pictures: Markdown, and the same as data."""
    number = math.lcm(*options.batches)
    argv = [*argv, "--pictures", str(number)]
    if options.photographs and len(PHOTOGRAPHS) % number:
        raise UserError(f"--batches must divide the {len(PHOTOGRAPHS)} photographs; try --batches 1,2,4")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        found = {size: measure_apart(str(size), argv, Path(folder)) for size in options.batches}
        for facts, tensors in found.values():
            rows.append({**facts, "apart": apart(tensors, found[1][1])})
    lines = [
        "| batch | seconds a picture | pictures an hour | time to one by one | UNet evaluations a picture "
        "| peak memory | embeddings to one by one, largest difference | end latents |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row['size']}",
            f"{row['seconds']:.3f}",
            f"{3600 / row['seconds']:.0f}",
            f"{row['seconds'] / rows[0]['seconds']:.3f}",
            f"{row['evaluations']:.1f}",
            f"{row['peak_bytes'] / 2**20:.0f} MiB",
            *(f"{row['apart'][name]:.1e}" for name in ("null", "z_0")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = (
        f"{rows[0]['pictures']} pictures in batches, the default, model {options.model}, precision "
        f"{options.precision}, {rows[0]['device']}, torch {torch.__version__}. Median of {options.repeats}; "
        "encoding and decoding are not in it.\n\n" + "\n".join(lines) + "\n"
    )
    return text, {"torch": torch.__version__, "batches": rows}
