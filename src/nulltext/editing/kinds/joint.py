"""Prompt-to-Prompt in joint attention, where image and text are one sequence with one softmax.

A probability of its own for the text is not there to be taken over. A word that has its counterpart in the source
takes the source's keys, so that it is looked at where that was. A word is made louder or softer by its values. Where
self-attention comes from the source, the image's queries and keys do. All of it runs on fused attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.models.attention import JointSite

if TYPE_CHECKING:
    from nulltext.editing.kinds.controls import RowControl


def joint_attention(site: JointSite, rows: Sequence[RowControl], step: int) -> Tensor:
    """The mixed values (B, heads, P + L, c) of a layer; the source row comes right before the edited ones."""
    query, key, value = site.query.clone(), site.key.clone(), site.value.clone()
    source = len(query) - 1 - len(rows)
    for k, row in enumerate(rows, source + 1):
        if row.share[step].any() and site.words.stop > site.words.start:
            words = slice(site.words.start, site.words.start + len(row.mapped))
            mapper, mapped, equalizer, share = (
                x.to(key) for x in (row.mapper, row.mapped, row.equalizer, row.share[step])
            )
            total = mapper.sum(1)  # of each word's counterparts the mean
            seen = (mapper / total.clamp(min=1e-6)[:, None]) @ key[source, :, words]
            key[k, :, words] = torch.lerp(key[k, :, words], seen, (mapped * share * (total > 0))[:, None])
            value[k, :, words] *= torch.lerp(torch.ones_like(share), equalizer, share)[:, None]
        if row.self_steps[step]:
            query[k, :, site.image] = query[source, :, site.image]
            key[k, :, site.image] = key[source, :, site.image]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=site.mask)


def word_maps(site: JointSite, first: int, length: int) -> Tensor:
    """How much image positions look at the first ``length`` words (B - first, P, length), from row ``first`` on.

    The mean over heads, of the layer as it is without a control, one head at a time.
    """
    words = slice(site.words.start, min(site.words.start + length, site.words.stop))
    total = torch.zeros(())
    with torch.autocast(site.query.device.type, enabled=False):
        for head in range(site.query.shape[1]):
            query, key = (x[first:, head].float() for x in (site.query[:, :, site.image], site.key))
            scores = query @ key.mT * query.shape[-1] ** -0.5
            if site.mask is not None:
                scores = scores + site.mask[first:, 0, site.image].float()
            total = scores.softmax(-1)[..., words] + total.to(scores)
    return total / site.query.shape[1]
