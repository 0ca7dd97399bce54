"""How much memory was used."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, in bytes: of the process on the CPU, of torch's allocations on CUDA."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
