"""Other noise to start an edit from, inside its mask."""

import torch
from torch import Tensor


def other_noise(noise: Tensor, mask: Tensor | None, seed: int) -> Tensor:
    """Other noise inside the mask (h, w), everywhere without one; the noise (1, C, h, w) as it is outside."""
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed)).to(noise)
    share = torch.ones_like(noise[0, 0]) if mask is None else mask
    return (1 - share).sqrt() * noise + share.sqrt() * other
