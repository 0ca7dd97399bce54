"""Devices and precisions, spelt one way in every verb."""

from __future__ import annotations

import torch

from nulltext.errors import UserError, first_line

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""The type of the network's weights; embeddings, latents, schedule and loss stay fp32."""

PRECISIONS: dict[str | int | None, str] = {
    **{name: "32-true" for name in (None, "32-true", "32", 32, "fp32")},
    **{name: "bf16-mixed" for name in ("bf16-mixed", "bf16")},
    **{name: "16-mixed" for name in ("16-mixed", "16", 16, "fp16")},
}
"""Every spelling of a precision, to its name in ``DTYPES``."""


def find_precision(name: str | int | None) -> str:
    """The precision of that name: a key of ``DTYPES``.

    Raises:
        UserError: No such precision, or one that would hold the embeddings in half, where learning fails.
    """
    if name not in PRECISIONS:
        raise UserError(
            f"precision {name!r} is not one of {', '.join(DTYPES)}; use bf16-mixed to go faster (the network in half, "
            "embeddings and loss in 32 bits)"
        )
    return PRECISIONS[name]


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name: cpu, cuda, cuda:1, mps; auto is the first GPU, or the CPU.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("nulltext computes on cpu, cuda and mps")
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = first_line(error).split(";")[0]
        raise UserError(f"device {name} is not available here ({reason}); try auto or cpu") from None
    return device
