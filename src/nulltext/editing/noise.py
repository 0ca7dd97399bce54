"""The noise that an edit starts from: the source's own, with calmer detail, or other noise inside the mask."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.editing.regions import Source
from nulltext.inversion.base import plain_noise

COARSE = 0.32
"""Side of the square whose mean is the coarse part of noise, as a share of the picture's shorter side."""


def start_noise(source: Source, steps: int) -> Tensor:
    """The noise (1, C, h, w) for so many ``detail_steps``; a plain inversion that is stored is not made again."""
    inversion, noise = source.inversion, source.trajectory[source.replay.first]
    if steps == inversion.detail_steps:
        plain = None if inversion.detail_noise is None else inversion.detail_noise[None].to(noise)
    else:
        begin = inversion.sigmas[0] if inversion.sigmas else 1.0
        plain = plain_noise(source.model, source.trajectory[-1], source.cond, steps, begin)
    return calm_detail(noise, plain)


def calm_detail(noise: Tensor, plain: Tensor | None) -> Tensor:
    """The source's noise (N, C, h, w) with its detail taken from a plain inversion's, where there is one.

    The fewer and the less refined the steps of an inversion, the fainter the noise in which it ends. From fainter noise
    a model draws calmer shapes, nearer to where the source's were. But faint noise also holds the source's colours,
    which an edit must be able to leave: so the coarse part comes from the good inversion.
    """
    return noise if plain is None else coarse(noise) + plain - coarse(plain)


def coarse(z: Tensor) -> Tensor:
    """The mean of each place's neighbourhood (N, C, h, w), edges repeated."""
    reach = round(COARSE * min(z.shape[-2:])) // 2
    return F.avg_pool2d(F.pad(z, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)


def other_noise(noise: Tensor, mask: Tensor | None, seed: int) -> Tensor:
    """Other noise inside the mask (h, w), everywhere without one; the noise (1, C, h, w) as it is outside."""
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)).to(noise)
    share = torch.ones_like(noise[0, 0]) if mask is None else mask
    return (1 - share).sqrt() * noise + share.sqrt() * other
