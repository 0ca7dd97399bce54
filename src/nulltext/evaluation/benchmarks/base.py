"""A benchmark: edits of pictures, each with its mask and its true picture where they are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from torch import Tensor

from nulltext.data.colour import orientation, upright
from nulltext.data.decode import decode
from nulltext.data.frame import Placement
from nulltext.data.masks import read_mask as read_mask_file
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.run_length import decode_runs
from nulltext.pixels import from_image, to_image

Stored: TypeAlias = Path | bytes
"""A picture file, or the bytes of one (parquet)."""


@dataclass(frozen=True)
class Task:
    """One edit of one picture."""

    name: str
    image: Stored
    prompt: str
    target_prompt: str | None = None  # None: only the reconstruction is scored
    edit_type: str = "unspecified"
    blend: tuple[str, str] | None = None  # the word of the source prompt and that of the target prompt
    mask_runs: tuple[int, ...] | None = None  # PIE-Bench's run-length mask on 512 x 512
    mask_image: Stored | None = None  # white where the edit is to happen
    truth: Stored | None = None  # the picture as the target prompt would have it


@dataclass
class Benchmark:
    """The tasks of a benchmark, where they came from, and what was wrong with the others."""

    name: str
    source: str
    tasks: list[Task]
    problems: list[str] = field(default_factory=list)  # each begins with the entry's name

    def limited(self, limit: int | None, edit_types: Sequence[str] | None = None) -> list[Task]:
        """The first ``limit`` tasks, dealt in turn from the edit types, so that few still cover many.

        A smaller limit gives the beginning of what a larger one gives.

        Raises:
            UserError: The limit is below 1, or an edit type is not in the benchmark.
        """
        if limit is not None and limit < 1:
            raise UserError(f"--data.limit is {limit}; give 1 or more, or null for all {len(self.tasks)}")
        groups: dict[str, list[Task]] = {}
        for task in self.tasks:
            groups.setdefault(task.edit_type, []).append(task)
        unknown = sorted(set(edit_types or ()) - set(groups))
        if unknown:
            known = ", ".join(sorted(groups))
            raise UserError(f"no edit type {', '.join(unknown)} in {self.name}; it has {known}")
        chosen = [groups[kind] for kind in sorted(groups) if edit_types is None or kind in edit_types]
        rounds = max(map(len, chosen))
        return [group[i] for i in range(rounds) for group in chosen if i < len(group)][:limit]

    def checked(self) -> Benchmark:
        """This benchmark without the second of two equal edits, its names unique.

        Two different edits of one picture are two tasks.

        Raises:
            UserError: Nothing is left.
        """
        seen: dict[tuple[Any, ...], str] = {}
        names: Counter[str] = Counter()
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            what = (task.image, task.prompt, task.target_prompt)
            if what in seen:
                self.problems.append(f"{task.name}: the same picture and edit as {seen[what]}; skipped")
                continue
            seen[what] = task.name
            names[task.name] += 1
            number = f"-{names[task.name]}" if names[task.name] > 1 else ""
            self.tasks.append(replace(task, name=task.name + number))
        if not self.tasks:
            first = f"; the first: {' '.join(self.problems[0].split())}" if self.problems else ""
            raise UserError(f"{self.source} has no usable entry ({len(self.problems)} skipped{first})")
        return self


def blend_words(words: Any) -> tuple[tuple[str, str] | None, str | None]:
    """The source's and the target's word of a blend, and a complaint where there are not two."""
    if words is None or words == "":
        return None, None
    parts = words.split() if isinstance(words, str) else []
    if len(parts) != 2:
        return None, f"its blended words {words!r} are not two, source and target; used without a blend"
    return (parts[0], parts[1]), None


def file_name(key: str) -> str:
    """A task's name as a file's: letters, digits, dots and dashes, at most 100."""
    return re.sub(r"[^\w.-]", "_", key)[:100].strip(".") or "task"


def read_picture(stored: Stored, size: int) -> tuple[Tensor, Placement]:
    """The middle square of a picture as pixels (3, size, size) in [-1, 1], and how it was cut.

    A whole multiple of ``size`` is averaged box by box, exact for pictures that were enlarged by repetition.

    Raises:
        UserError: It is not there or not a picture.
    """
    image, _ = decode(stored)
    whole = upright(image)
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    box = (float(left), float(top), float(left + side), float(top + side))
    place = Placement((whole.height, whole.width), orientation(image), box, (size, size))
    way = Image.Resampling.BOX if side % size == 0 else Image.Resampling.BICUBIC
    return from_image(place.apply(whole, way)), place


def read_mask(task: Task, size: int, placement: Placement | None = None) -> Tensor | None:
    """A task's mask (1, size, size) of zeros and ones, cut and resized as its picture; None without one.

    A pixel counts as edited where at least half of it is.

    Raises:
        UserError: The mask cannot be read.
    """
    if task.mask_runs is not None:
        runs = to_image(decode_runs(task.mask_runs).expand(3, -1, -1) * 2 - 1).convert("L")
        small = from_image(runs.resize((size, size), Image.Resampling.BOX))[:1]
        return (small >= 0).float()
    if task.mask_image is not None:
        return (read_mask_file(task.mask_image, placement, (size, size)) >= 0.5).float()[None]
    return None
