"""Pictures that another tool finished, found for the edits of a benchmark. Nothing is written to their folder."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from nulltext.data.colour import upright
from nulltext.data.decode import SUFFIXES, decode
from nulltext.data.text import decode_text, inside, on_disk
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Source, Stored, Task, cut

METADATA = "metadata.jsonl"
WAY = "finished"
"""The way of editing of a picture of which nothing says it."""


class Made(NamedTuple):
    """A finished picture: how it was made, as far as its folder says, and its file."""

    method: str  # "" where nothing says it
    way: str
    path: Path


def check_finished(folder: Path) -> Path:
    """The folder as it is on the disk; UserError where there is none."""
    folder = on_disk(folder)
    if not folder.is_dir():
        raise UserError(f"no folder of finished pictures {folder}; give --finished.NAME FOLDER")
    return folder


def find_finished(folder: Path, tasks: Sequence[Task]) -> dict[str, list[Made]]:
    """The finished pictures of each task that has some, by the task's name.

    A ``metadata.jsonl`` names each by ``file_name`` and ``picture``, as in the pictures' folder of a benchmark of ours.
    Without one, the name of a file is the task's, or its path ends as the source picture's does, as in
    ``METHOD/annotation_images/1_change_object_80/111000000000.png`` for PIE-Bench.

    Raises:
        UserError: There is no such folder, or no picture of any task in it.
    """
    folder = check_finished(folder)
    found = _listed(folder / METADATA) if (folder / METADATA).is_file() else _named(folder, tasks)
    known = {task.name: found[task.name] for task in tasks if found.get(task.name)}
    if not known:
        raise UserError(
            f"{folder} has no picture of these {len(tasks)} edits; name them as the edits, such as "
            f"{tasks[0].name}.png, or give them the folders of the sources"
        )
    return known


def _listed(path: Path) -> dict[str, list[Made]]:
    found = defaultdict(list)
    for number, text in enumerate(decode_text(path.read_bytes(), str(path)).splitlines(), 1):
        try:
            row: dict[str, Any] = json.loads(text)
            name, file, method = (str(row.get(key) or "") for key in ("picture", "file_name", "method"))
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path}:{number} is no JSON object; write one a line") from error
        if row.get("target_prompt") is None or not file:  # a reconstruction
            continue
        place = inside(path.parent, file)
        if place is None or not place.is_file():
            raise UserError(f"{path}:{number} names no picture of its folder: {file[:100]!r}")
        found[name].append(Made(method, str(row.get("editing") or WAY), place))
    return found


def _named(folder: Path, tasks: Sequence[Task]) -> dict[str, list[Made]]:
    """By the task's name, or else by the longest end of the source's path, where one task alone has that picture."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    ends: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        parts = file.relative_to(folder).with_suffix("").parts
        for k in range(len(parts)):
            ends[parts[k:]].append(file)
    edits, found = Counter(task.image for task in tasks), {}
    for task in tasks:
        parts = task.image.with_suffix("").parts if isinstance(task.image, Path) else ()
        keys = [(task.name,), *(parts[k:] for k in range(len(parts)) if edits[task.image] == 1)]
        match = next((ends[key] for key in keys if len(ends.get(key, ())) == 1), [])
        found[task.name] = [Made("", WAY, file) for file in match]
    return found


def read_finished(stored: Stored, source: Source, size: int) -> Tensor:
    """A finished picture as pixels (3, size, size) in [-1, 1], cut as its source; of a strip the rightmost square."""
    image = upright(decode(stored)[0])
    (height, width), (side, wide) = source.placement.original, (image.height, image.width)
    if wide > side and wide % side == 0 and wide * height != side * width:
        image = image.crop((wide - side, 0, wide, side))
    return cut(image, size)[0]
