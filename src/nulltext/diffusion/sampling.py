"""The one sampling loop; what is sampled differs by the denoiser alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from nulltext.diffusion.prediction import Prediction, step
from nulltext.diffusion.schedule import Schedule

Denoise: TypeAlias = Callable[[Tensor, int], Prediction]
"""The prediction at latents z (B, C, h, w) at the start of step i: guided, edited, or plain."""


def sample(
    denoise: Denoise,
    schedule: Schedule,
    z: Tensor,
    after: Callable[[Tensor, int], Tensor] | None = None,
    first: int = 0,
) -> Iterator[Tensor]:
    """Samples from noise to a picture's latents.

    Args:
        denoise: The denoiser.
        schedule: T steps.
        z: The noise z_T (B, C, h, w), or the latents at the start of step ``first``.
        after: Changes the latents at the end of step i, such as keeping them outside a mask.
        first: The steps before it are left out.

    Yields:
        The latents (B, C, h, w) at the end of each step; the last are z_0.
    """
    for i in range(first, schedule.steps):
        z = step(denoise(z, i), schedule.there(i))
        if after is not None:
            z = after(z, i)
        yield z


def trajectory(denoise: Denoise, schedule: Schedule, z: Tensor) -> Tensor:
    """All latents of ``sample`` and the noise before them (T + 1, B, C, h, w), noisiest first."""
    return torch.stack([z, *sample(denoise, schedule, z)])
