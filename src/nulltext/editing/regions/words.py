"""Where words of the prompts are looked at: Prompt-to-Prompt's local blend."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.editing.compositing import pool
from nulltext.editing.regions.base import Context, Region

WORD_THRESHOLD = 0.3
"""The part of an attention map's maximum over which a pixel belongs to a word (Prompt-to-Prompt's code)."""


class Words(Region):
    """Where any of the words of ``local_blend`` is looked at."""

    follows_attention = True

    def find(self, context: Context) -> Tensor | None:
        """The union over words and prompts, of the maps recorded so far.

        Raises:
            UserError: Neither prompt has one of the words.
        """
        maps = [found for word in context.edit.blend_words for found in context.maps(word)]
        threshold = WORD_THRESHOLD if context.edit.threshold is None else context.edit.threshold
        return word_mask(maps, context.size, threshold, context.edit.max_pool) if maps else None


def word_mask(maps: Sequence[Tensor], size: tuple[int, int], threshold: float, max_pool: int = 3) -> Tensor:
    """Where any of some attention maps (h', w') exceeds a part of its maximum, grown: 0 or 1 of ``size`` (h, w)."""
    mask = torch.zeros(size, dtype=torch.bool, device=maps[0].device)
    for attention in maps:
        grown = F.interpolate(pool(attention, max_pool)[None, None], size=size)[0, 0]
        mask |= grown / grown.max().clamp(min=1e-12) > threshold
    return mask.float()
