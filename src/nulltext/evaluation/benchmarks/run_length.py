"""PIE-Bench's run-length masks: pairs of start and length over the row-major picture of 512 x 512."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PIE_SIDE = 512
"""Side in pixels of PIE-Bench's pictures, on which its masks are counted."""


def decode_runs(runs: Sequence[int], side: int = PIE_SIDE) -> Tensor:
    """A mask from its runs.

    As in PIE-Bench's evaluation, a run is cut at the end of the picture, and the outermost rows and columns always
    count as edited.

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
    """The inverse of ``decode_runs``, border aside: (1, H, W) of zeros and ones to start, length, ..."""
    flat = np.concatenate([[0], mask.reshape(-1).numpy() > 0.5, [0]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))  # rises and falls in turn
    starts, ends = edges[::2], edges[1::2]
    return [int(n) for pair in zip(starts, ends - starts, strict=True) for n in pair]
