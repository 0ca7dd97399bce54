"""How much memory was used, and how many pictures fit into what is free."""

from __future__ import annotations

import sys

import psutil
import torch

from nulltext.models.base import DiffusionModel

MOST_TOGETHER = 8  # pictures; from 4 to 8 a picture gains little (docs/speed.md, throughput)
FREE_SHARE = 0.5  # of the free memory, for the pictures that go together
MAPS = 600
"""The most that the gradient of one picture takes, in feature maps of the network's first block.

By docs/speed.md it is 250 of the farmyard's (the peaks by batch) and 440 of Stable Diffusion 1.5's (the peak less the
weights).
"""


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: of the process on the CPU, of torch's allocations on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: torch.device) -> int:
    """The memory that could still be had, in bytes; 0 where a device does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available if device.type == "cpu" else 0


def pictures_together(model: DiffusionModel, size: tuple[int, int], free: int) -> int:
    """How many pictures may be inverted at once: 1, 2, 4 or 8.

    Args:
        model: The model.
        size: (height, width) of the largest, in pixels.
        free: The memory for them, in bytes.
    """
    _, h, w = model.latent_shape(size)
    picture = MAPS * model.network_width * h * w * model.dtype.itemsize
    fitting = (2**k for k in range(MOST_TOGETHER.bit_length()) if 2**k * picture <= FREE_SHARE * free)
    return max(fitting, default=1)
