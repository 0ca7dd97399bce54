"""PIE-Bench's run-length masks: pairs of start and length over the row-major picture of 512 x 512."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PIE_SIDE = 512
"""Side in pixels of PIE-Bench's pictures, on which its masks are counted."""


def decode_runs(runs: Sequence[int]) -> Tensor:
    """A mask (1, 512, 512) of zeros and ones from start, length, start, length, ...

    As in PIE-Bench's evaluation, a run is cut at the end of the picture, and the outermost rows and columns always
    count as edited.

    Raises:
        ValueError: An odd number of integers, a value that is none, or a start outside the picture.
    """
    if len(runs) % 2:
        raise ValueError(f"its mask has {len(runs)} numbers, and runs come in pairs of start and length")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise ValueError("its mask holds something other than whole numbers from 0")
    side, pixels = PIE_SIDE, PIE_SIDE**2
    flat = torch.zeros(pixels)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if start >= pixels:
            raise ValueError(f"its mask starts a run at {start}, beyond the picture's {pixels} pixels")
        flat[start : min(start + length, pixels)] = 1
    inner = flat.view(1, side, side)[:, 1:-1, 1:-1]
    return F.pad(inner, (1, 1, 1, 1), value=1.0)


def encode_runs(mask: Tensor) -> list[int]:
    """The inverse of ``decode_runs``, border aside: (1, H, W) of zeros and ones to start, length, ..."""
    flat = F.pad((mask.flatten() > 0.5).int(), (1, 1))
    edges = flat.diff().nonzero().flatten()  # rises and falls in turn
    return torch.stack([edges[::2], edges[1::2] - edges[::2]], dim=1).flatten().tolist()
