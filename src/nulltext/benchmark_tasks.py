"""What a benchmark asks: edits of pictures, each with its mask and, where it is known, its true answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nulltext.errors import UserError
from nulltext.pictures import open_bounded

PIE_SIDE = 512
"""Side in pixels of PIE-Bench's pictures, on which its run-length masks are counted."""

Stored: TypeAlias = Path | bytes
"""A picture as it lies on the disk, or the bytes of such a file (parquet)."""


@dataclass(frozen=True)
class Task:
    """One edit of one picture."""

    name: str
    image: Stored
    prompt: str
    target_prompt: str
    edit_type: str = "unspecified"
    blend: tuple[str, str] | None = None
    """The word of the source and the word of the target prompt between which the edit takes place."""
    mask_runs: tuple[int, ...] | None = None
    """PIE-Bench's run-length mask on 512 x 512, or None."""
    mask_image: Stored | None = None
    """A picture whose bright half (above 127) is edited, or None."""
    counterfactual: Stored | None = None
    """The picture as it would be if the target prompt were true, or None."""


@dataclass
class Benchmark:
    """The tasks of a benchmark, where they came from, and what was wrong with the rest."""

    name: str
    source: str
    tasks: list[Task]
    problems: list[str] = field(default_factory=list)

    def limited(self, limit: int | None, edit_types: Sequence[str] | None = None) -> list[Task]:
        """The first `limit` tasks, dealt in turn from the edit types, so that few still cover many.

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
        dealt = [group[i] for i in range(rounds) for group in chosen if i < len(group)]
        return dealt[:limit]


def decode_runs(runs: Sequence[int], side: int = PIE_SIDE) -> Tensor:
    """PIE-Bench's run-length mask: pairs of start and length over the row-major picture.

    As in PIE-Bench's evaluation, a run is cut at the end of the picture and the outermost rows and columns
    always count as edited ("to avoid annotation errors in the boundary").

    Args:
        runs: start, length, start, length, ...
        side: Side of the picture in pixels.

    Returns:
        (1, side, side) of zeros and ones.

    Raises:
        ValueError: An odd number of integers, a value that is none, or a start outside the picture.
    """
    if len(runs) % 2:
        raise ValueError(f"its mask has {len(runs)} numbers, and runs come in pairs of start and length")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise ValueError("its mask holds something other than whole numbers from 0")
    flat = np.zeros(side * side, dtype=np.float32)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if start >= side * side:
            raise ValueError(f"its mask starts a run at {start}, beyond the picture's {side * side} pixels")
        flat[start : start + length] = 1
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = 1
    mask[:, [0, -1]] = 1
    return torch.from_numpy(mask)[None]


def encode_runs(mask: Tensor) -> list[int]:
    """The inverse of `decode_runs`, border aside: (1, H, W) of zeros and ones to start, length, ..."""
    flat = np.concatenate([[0], mask.reshape(-1).numpy() > 0.5, [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))  # rises and falls in turn
    starts, ends = edges[::2], edges[1::2]
    return [int(n) for pair in zip(starts, ends - starts, strict=True) for n in pair]


def read_picture(stored: Stored, size: int) -> Tensor:
    """A picture as (3, size, size) in [0, 1]: EXIF rotation undone, centre square, box or bicubic resize.

    A whole multiple of `size` is averaged box by box, exact for pictures that were enlarged by repetition.

    Raises:
        ValueError: It is not there or not a picture.
    """
    square = _square(stored, "RGB")
    way = Image.Resampling.BOX if square.width % size == 0 else Image.Resampling.BICUBIC
    square = square if square.width == size else square.resize((size, size), way)
    pixels = np.asarray(square, dtype=np.float32) / 255  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)


def read_mask(task: Task, size: int) -> Tensor | None:
    """The task's mask as (1, size, size) of zeros and ones, or None without one.

    It is cut and resized as its picture is. A pixel counts as edited when at least half of it is.

    Raises:
        ValueError: The mask is broken.
    """
    if task.mask_runs is not None:
        array = (decode_runs(task.mask_runs)[0].numpy() * 255).astype(np.uint8)
        square = Image.fromarray(array)
    elif task.mask_image is not None:
        square = _square(task.mask_image, "L").point(lambda v: 255 * (v > 127))
    else:
        return None
    pixels = np.asarray(square.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    return torch.from_numpy((pixels >= 127.5).astype(np.float32))[None]


def _square(stored: Stored, mode: str) -> Image.Image:
    """Open a picture and cut its centre square."""
    try:
        content = stored if isinstance(stored, bytes) else Path(stored).read_bytes()
        picture = ImageOps.exif_transpose(open_bounded(content)).convert(mode)
    except (OSError, ValueError, UserError) as error:
        name = "a stored picture" if isinstance(stored, bytes) else str(stored)
        raise ValueError(f"{name} cannot be read as a picture ({error})") from error
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
