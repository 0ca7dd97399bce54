"""The noise that an edit starts from: the source's own, with calmer detail, or other noise inside the mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.pivot import ddim_invert

COARSE = 0.32
"""Side of the square whose mean is the coarse part of noise, as a share of the picture's shorter side."""


def calm_detail(
    backbone: Backbone, noise: Tensor, z_0: Tensor, cond: TextEmbedding, detail_steps: int
) -> Tensor:
    """The source's noise with its detail taken from a plain DDIM inversion in few steps.

    The fewer and the less refined the steps of an inversion, the fainter the noise in which it ends. From faint noise
    the farmyard draws calmer shapes, nearer to where the source's were (``benchmarks/edits.py``); but the source's
    colours are in it as well, and an edit could not leave them. So what is coarse is taken from the good inversion.

    Args:
        backbone: The model.
        noise: z_T of the inversion (1, 4, h, w).
        z_0: The source's latents (1, 4, h, w).
        cond: The source prompt, one row.
        detail_steps: The steps of the plain inversion, one forward each; 0 keeps the noise as it is.

    Returns:
        (1, 4, h, w).
    """
    if not detail_steps:
        return noise
    plain = ddim_invert(backbone, backbone.schedule(detail_steps), z_0, cond)[0]
    return coarse(noise) + plain - coarse(plain)


def coarse(z: Tensor) -> Tensor:
    """The mean of each place's neighbourhood (N, 4, h, w), edges repeated."""
    reach = round(COARSE * min(z.shape[-2:])) // 2
    return F.avg_pool2d(F.pad(z, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def other_noise(noise: Tensor, mask: Tensor | None, seed: int) -> Tensor:
    """Other noise inside the mask (h, w), everywhere without one; the noise (1, 4, h, w) as it is outside."""
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)).to(noise)
    share = torch.ones_like(noise[0, 0]) if mask is None else mask
    return (1 - share).sqrt() * noise + share.sqrt() * other
