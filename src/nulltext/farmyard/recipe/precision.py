"""What this machine computes fast."""

import ctypes
import sys
from contextlib import suppress

import torch


def has_fast_bf16() -> bool:
    """Whether a GPU or, without one, the CPU multiplies bfloat16 natively; elsewhere it is slower than fp32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def training_precision() -> str:
    """The Lightning precision to train in here: bf16-mixed where that is fast, else 32-true."""
    return "bf16-mixed" if has_fast_bf16() else "32-true"


def hold_memory() -> None:
    """Keep glibc from returning freed memory to the system; on a CPU a third of a training step is spent on that."""
    if not sys.platform.startswith("linux"):
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # from malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
            libc.mallopt(option, value)
