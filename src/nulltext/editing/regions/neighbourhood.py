"""What a place's neighbours say: means, maxima, openings. All sides are odd; planes are (..., h, w)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def smooth(values: Tensor, side: int = 3) -> Tensor:
    """The mean over side x side neighbours; the border repeats."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    padded = F.pad(planes, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1).reshape(values.shape)


def pool(values: Tensor, side: int) -> Tensor:
    """The maximum over side x side neighbours."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    return F.max_pool2d(planes, side, stride=1, padding=side // 2).reshape(values.shape)


def opened(values: Tensor, side: int) -> Tensor:
    """The morphological opening: what is narrower than side goes; what is wider stays as it is."""
    return pool(-pool(-values, side), side)
