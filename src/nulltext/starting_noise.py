"""The noise that an edit starts from: the source's own, with calmer detail, or other noise inside the mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.pivot import ddim_invert

COARSE = 0.32
"""Side of the square whose mean is the coarse part of noise, as a share of the picture's shorter side."""


def plain_noise(backbone: Backbone, z_0: Tensor, cond: TextEmbedding, steps: int) -> Tensor | None:
    """The noise in which a plain DDIM inversion in few steps ends, one forward each; None for no steps.

    Args:
        backbone: The model.
        z_0: The pictures' latents (B, 4, h, w).
        cond: The source prompts, B rows.
        steps: The steps of the inversion.

    Returns:
        (B, 4, h, w).
    """
    return ddim_invert(backbone, backbone.schedule(steps), z_0, cond)[0] if steps else None


def calm_detail(noise: Tensor, plain: Tensor | None) -> Tensor:
    """The source's noise (N, 4, h, w) with its detail taken from a plain inversion's, where there is one.

    The fewer and the less refined the steps of an inversion, the fainter the noise in which it ends. From faint noise
    the farmyard draws calmer shapes, nearer to where the source's were (``benchmarks/edits.py``); but the source's
    colours are in it as well, and an edit could not leave them. So what is coarse is taken from the good inversion.
    """
    return noise if plain is None else coarse(noise) + plain - coarse(plain)


def coarse(z: Tensor) -> Tensor:
    """The mean of each place's neighbourhood (N, 4, h, w), edges repeated."""
    reach = round(COARSE * min(z.shape[-2:])) // 2
    return F.avg_pool2d(F.pad(z, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def other_noise(noise: Tensor, mask: Tensor | None, seed: int) -> Tensor:
    """Other noise inside the mask (h, w), everywhere without one; the noise (1, 4, h, w) as it is outside."""
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)).to(noise)
    share = torch.ones_like(noise[0, 0]) if mask is None else mask
    return (1 - share).sqrt() * noise + share.sqrt() * other
