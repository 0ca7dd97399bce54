"""A benchmark: edits of pictures, each with its mask and its true picture where they are known."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from PIL import Image
from torch import Tensor

from nulltext.data.colour import orientation, upright
from nulltext.data.decode import decode
from nulltext.data.frame import Placement
from nulltext.data.masks import read_mask as read_mask_file
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.run_length import decode_runs
from nulltext.pixels import from_image, to_image

Entry = TypeVar("Entry")
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


@dataclass(frozen=True)
class Source:
    """A picture with its prompt, and its edits."""

    pixels: Tensor  # (3, H, W) in [-1, 1]
    placement: Placement
    tasks: list[Task] = field(default_factory=list)


@dataclass
class Benchmark:
    """The tasks of a benchmark, and what was wrong with other entries."""

    name: str
    tasks: list[Task]
    problems: list[str] = field(default_factory=list)  # each begins with the entry's name
    prompts: str = "as they are"  # or what became of them

    def limited(self, limit: int | None, edit_types: Sequence[str] | None = None) -> list[Task]:
        """The first ``limit`` tasks, dealt in turn from the edit types, so that few still cover many.

        A smaller limit gives the beginning of what a larger one gives. UserError: a limit below 1, an unknown type.
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


def benchmark_of(
    name: str,
    source: Path,
    entries: Iterable[tuple[str, Entry]],
    read: Callable[[str, Entry], Task],
    problems: list[str],
) -> Benchmark:
    """The tasks that ``read`` makes of labelled entries, their names unique.

    What it refuses, and the second of two equal edits, are skipped and named. UserError where nothing is left.
    """
    seen: dict[tuple[Any, ...], str] = {}
    names: Counter[str] = Counter()
    tasks = []
    for label, entry in entries:
        try:
            task = read(label, entry)
            what = (task.image, task.prompt, task.target_prompt)
            if what in seen:
                raise ValueError(f"the same picture and edit as {seen[what]}")
        except (UserError, ValueError) as error:
            problems.append(f"{label}: {error}; skipped")
            continue
        seen[what] = task.name
        names[task.name] += 1
        number = f"-{names[task.name]}" if names[task.name] > 1 else ""
        tasks.append(replace(task, name=task.name + number))
    if not tasks:
        first = f"; the first: {' '.join(problems[0].split())}" if problems else ""
        raise UserError(f"{source} has no usable entry ({len(problems)} skipped{first})")
    return Benchmark(name, tasks, problems)


def blend_words(words: Any, label: str, problems: list[str]) -> tuple[str, str] | None:
    """The source's and the target's word of a blend; None, and a problem, where there are not two."""
    if words is None or words == "":
        return None
    parts = words.split() if isinstance(words, str) else []
    if len(parts) != 2:
        problems.append(
            f"{label}: its blended words {words!r} are not two, source and target; used without a blend"
        )
        return None
    return parts[0], parts[1]


def file_name(key: str) -> str:
    """A task's name as a file's: letters, digits, dots and dashes, at most 100."""
    return re.sub(r"[^\w.-]", "_", key)[:100].strip(".") or "task"


def gather_sources(tasks: Sequence[Task], size: int, problems: list[str]) -> list[Source]:
    """Tasks by picture and prompt, in order of first appearance; what cannot be read is skipped and named."""
    sources: dict[tuple[Stored, str], Source] = {}
    for task in tasks:
        try:
            pixels, placement = read_picture(task.image, size)
            read_mask(task, size, placement)
            if task.truth is not None:
                read_picture(task.truth, size)
        except UserError as error:
            problems.append(f"{task.name}: {error}; skipped")
            continue
        sources.setdefault((task.image, task.prompt), Source(pixels, placement)).tasks.append(task)
    return list(sources.values())


def read_picture(stored: Stored, size: int) -> tuple[Tensor, Placement]:
    """The middle square of a picture as pixels (3, size, size) in [-1, 1], and how it was cut.

    UserError where it is not there or not a picture.
    """
    image, _ = decode(stored)
    pixels, place = cut(upright(image), size)
    return pixels, replace(place, orientation=orientation(image))


def cut(whole: Image.Image, size: int) -> tuple[Tensor, Placement]:
    """The same of an upright picture.

    A whole multiple of ``size`` is averaged box by box, exact for pictures that were enlarged by repetition.
    """
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    box = (float(left), float(top), float(left + side), float(top + side))
    place = Placement((whole.height, whole.width), 1, box, (size, size))
    way = Image.Resampling.BOX if side % size == 0 else Image.Resampling.BICUBIC
    return from_image(place.apply(whole, way)), place


def read_mask(task: Task, size: int, placement: Placement | None = None) -> Tensor | None:
    """A task's mask (1, size, size) of zeros and ones, cut and resized as its picture; None without one.

    A pixel counts as edited where at least half of it is. UserError where the mask cannot be read.
    """
    if task.mask_runs is not None:
        runs = to_image(decode_runs(task.mask_runs).expand(3, -1, -1) * 2 - 1)
        return (from_image(runs.resize((size, size), Image.Resampling.BOX))[:1] >= 0).float()
    if task.mask_image is not None:
        return (read_mask_file(task.mask_image, placement, (size, size)) >= 0.5).float()[None]
    return None
