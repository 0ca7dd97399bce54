"""The pictures of a benchmark, each with its edits, read before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nulltext.data.frame import Placement
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Stored, Task, read_mask, read_picture


@dataclass(frozen=True)
class Source:
    """A picture with its prompt, and its edits."""

    pixels: Tensor  # (3, H, W) in [-1, 1]
    placement: Placement
    tasks: tuple[Task, ...]

    @property
    def prompt(self) -> str:
        """What it shows."""
        return self.tasks[0].prompt


def gather_sources(tasks: Sequence[Task], size: int, problems: list[str]) -> list[Source]:
    """Tasks by picture and prompt, in order of first appearance; what cannot be read is skipped and named."""
    together: dict[tuple[Stored, str], list[Task]] = {}
    for task in tasks:
        together.setdefault((task.image, task.prompt), []).append(task)
    sources = []
    for (image, _), members in together.items():
        try:
            pixels, placement = read_picture(image, size)
        except UserError as error:
            problems += [f"{task.name}: {error}; skipped" for task in members]
            continue
        usable = [task for task in members if _usable(task, size, placement, problems)]
        if usable:
            sources.append(Source(pixels, placement, tuple(usable)))
    return sources


def _usable(task: Task, size: int, placement: Placement, problems: list[str]) -> bool:
    try:
        read_mask(task, size, placement)
        if task.truth is not None:
            read_picture(task.truth, size)
    except UserError as error:
        problems.append(f"{task.name}: {error}; skipped")
        return False
    return True
