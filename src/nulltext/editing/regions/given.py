"""Regions that an edit names: a painted mask, and where words of the prompts are looked at."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.data.frame import Placement
from nulltext.data.masks import read_mask
from nulltext.editing.compositing import pool
from nulltext.editing.regions.base import Context, Region
from nulltext.errors import UserError

WORD_THRESHOLD = 0.3
"""The part of an attention map's maximum over which a pixel belongs to a word (Prompt-to-Prompt's code)."""


class Given(Region):
    """The edit's ``mask``: a tensor over the picture's pixels, or a file painted over the photograph."""

    def find(self, context: Context) -> Tensor | None:
        """The mask over the latents. A file goes through the picture's own turn, crop and resize."""
        mask, inversion = context.edit.mask, context.inversion
        if mask is None:
            return None
        if isinstance(mask, Tensor):
            return fit_mask(mask, context.size).to(context.device)
        placement = Placement.from_dict(inversion.placement) if inversion.placement else None
        painted = read_mask(mask, placement, inversion.size)
        return fit_mask(painted, context.size, str(mask)).to(context.device)


class Words(Region):
    """Where any of the words of ``local_blend`` is looked at: Prompt-to-Prompt's local blend."""

    follows_attention = True

    def find(self, context: Context) -> Tensor | None:
        """The union over words and prompts, of the maps recorded so far."""
        maps = [found for word in context.edit.blend_words for found in context.maps(word)]
        threshold = WORD_THRESHOLD if context.edit.threshold is None else context.edit.threshold
        return word_mask(maps, context.size, threshold, context.edit.max_pool) if maps else None


def fit_mask(mask: Tensor, latent: tuple[int, int], name: str = "given") -> Tensor:
    """A mask (H, W) in [0, 1] over pixels as (h, w) over latents, the mean of its pixels; refused where empty."""
    small = F.interpolate(mask.float()[None, None], size=latent, mode="area")[0, 0].clamp(0, 1)
    if not bool((small > 0).any()):
        raise UserError(
            f"the mask {name} is black all over, so nothing would be edited; paint white where to edit"
        )
    return small


def word_mask(maps: Sequence[Tensor], size: tuple[int, int], threshold: float, max_pool: int = 3) -> Tensor:
    """Where any of some attention maps (h', w') exceeds a part of its maximum, grown: 0 or 1 of ``size`` (h, w)."""
    mask = torch.zeros(size, dtype=torch.bool, device=maps[0].device)
    for attention in maps:
        grown = F.interpolate(pool(attention, max_pool)[None, None], size=size)[0, 0]
        mask |= grown / grown.max().clamp(min=1e-12) > threshold
    return mask.float()
