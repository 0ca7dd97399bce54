"""Drawn pictures as the networks take them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_pixels(pictures: Tensor | NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) fp32 in [-1, 1]."""
    if not isinstance(pictures, Tensor):
        pictures = torch.from_numpy(np.array(pictures))  # a copy: the file's own memory is read-only
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
