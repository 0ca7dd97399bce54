"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): edited rows of a batch see through the source row's attention.

A layer that the control does not touch at a step runs its own attention. Where only self-attention is taken from the
source, the edited rows take its queries and keys and stay on fused attention. Probabilities are computed only for rows
whose cross-attention is controlled or recorded. Layers differ by their resolution relative to the latents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.editing.kinds.base import RowControl
from nulltext.errors import UserError
from nulltext.models.attention import AttentionSite, JointSite
from nulltext.models.base import DiffusionModel

SELF_LEVEL = 1
"""Self-attention is taken on maps of at most half the latents' sides (32 x 32 of 64 x 64, as the reference)."""
RECORDED_PIXELS = 64 * 64
"""Cross-attention maps of more pixels are not recorded."""


def control_cross(source: Tensor, own: Tensor, row: RowControl, step: int) -> Tensor:
    """An edited row's probabilities (heads, pixels, L) from the source's and its own: section 3 of the paper.

    Replace and refine: a token that has a counterpart sees where that was seen, a new one where it sees itself.
    Reweight: that map times its equalizer. Nothing is renormalised.
    """
    mapper, mapped, equalizer, share = row.at(step, source)
    edited = torch.lerp(own, source @ mapper.T, mapped) * equalizer
    return torch.lerp(own, edited, share)


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The (height, width) of a network's maps for latents of that size, level 0 the latents' own."""
    sizes = [(height, width)]
    while max(sizes[-1]) > 1:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


@dataclass
class AttentionControl:
    """The controls of the edited rows of a batch, the current step, and the attention maps recorded so far.

    In the batch, the source row comes right before the edited ones, as the last rows: ``[..., source, edit 1, ...,
    edit n]``. Rows before them, the unconditional half, are left alone.
    """

    rows: Sequence[RowControl]
    latent: tuple[int, int]  # (h, w)
    record: bool = False  # whether to add up cross-attention maps
    step: int = 0
    sums: dict[int, Tensor] = field(default_factory=dict)  # level: (1 + n, pixels, L), over layers and steps
    counts: dict[int, int] = field(default_factory=dict)  # level: how many maps were added
    touched: set[str] = field(default_factory=set)  # the names of the layers that were
    wanted: bool = False  # whether any step was to touch one

    def start_step(self, step: int) -> None:
        """Sets which of the T steps the next evaluation of the network belongs to."""
        self.step = step
        self.wanted |= self.record or bool(self._rows_with_cross() or self._rows_with_self())

    def __call__(self, site: AttentionSite) -> Tensor | None:
        """The mixed values (B, heads, P, c) of a layer that is controlled or recorded, None for any other."""
        if isinstance(site, JointSite):
            mixed = self._joint_attention(site)
        else:
            mixed = self._cross_attention(site) if site.is_cross else self._self_attention(site)
        if mixed is not None:
            self.touched.add(site.name)
        return mixed

    def level(self, pixels: int) -> int:
        """The level of a map with so many pixels; UserError where these latents have none."""
        counts = [height * width for height, width in level_sizes(*self.latent)]
        if pixels not in counts:
            size = f"{self.latent[0]} x {self.latent[1]}"
            raise UserError(
                f"a layer attends over {pixels} positions, at no level of a {size} latent; use kind: plain"
            )
        return counts.index(pixels)

    def _rows_with_cross(self) -> list[int]:
        return [k for k, row in enumerate(self.rows) if bool(row.share[self.step].any())]

    def _rows_with_self(self) -> list[int]:
        return [k for k, row in enumerate(self.rows) if bool(row.self_steps[self.step])]

    def _recorded(self, pixels: int) -> bool:
        return self.record and pixels <= RECORDED_PIXELS

    def _self_attention(self, site: AttentionSite) -> Tensor | None:
        """Fused attention in which edited rows have the source's queries and keys: softmax(Q_s K_s) V."""
        rows = self._rows_with_self()
        if not rows or self.level(site.pixels) < SELF_LEVEL:
            return None
        source = len(site.query) - 1 - len(self.rows)
        seen_by = torch.arange(len(site.query), device=site.query.device)
        seen_by[[source + 1 + k for k in rows]] = source
        return F.scaled_dot_product_attention(site.query[seen_by], site.key[seen_by], site.value)

    def _cross_attention(self, site: AttentionSite) -> Tensor | None:
        """Fused attention for the rows left alone, explicit probabilities for the source and edited rows."""
        rows = self._rows_with_cross()
        if not rows and not self._recorded(site.pixels):
            return None
        query, key, value = site.query, site.key, site.value
        source = len(query) - 1 - len(self.rows)
        alone = F.scaled_dot_product_attention(query[:source], key[:source], value[:source])
        with torch.autocast(query.device.type, enabled=False):  # probabilities in full precision
            scores = query[source:].float() @ key[source:].float().mT * query.shape[-1] ** -0.5
            own = scores.softmax(-1)  # (1 + n, heads, P, L)
            seen = own.clone()
            for k in rows:
                seen[k + 1] = control_cross(own[0], own[k + 1], self.rows[k], self.step)
            if self._recorded(site.pixels):
                self._add(site.pixels, seen.float().mean(1))
            mixed = (seen @ value[source:].float()).to(value.dtype)
        return torch.cat([alone, mixed])

    def _joint_attention(self, site: JointSite) -> Tensor | None:
        """The mixed values (B, heads, P + L, c) of image and text, one sequence with one softmax, on fused attention.

        The text has no probability of its own to take over. A word that has its counterpart in the source takes the
        source's keys, so that it is looked at where that was. A word is made louder or softer by its values. Where
        self-attention comes from the source, the image's queries and keys do.
        """
        first, has_words = site.words.start, site.words.stop > site.words.start
        rows, source = self._rows_with_cross(), len(site.query) - 1 - len(self.rows)
        recorded = has_words and self._recorded(site.pixels)
        if recorded:
            self._add(site.pixels, word_maps(site, source, len(self.rows[0].mapped)))
        elif not rows and not self._rows_with_self():
            return None
        query, key, value = site.query.clone(), site.key.clone(), site.value.clone()
        for k in rows if has_words else ():
            mapper, mapped, equalizer, share = self.rows[k].at(self.step, key)
            edit, words = source + 1 + k, slice(first, first + len(mapped))
            total = mapper.sum(1)  # of each word's counterparts the mean
            seen = (mapper / total.clamp(min=1e-6)[:, None]) @ key[source, :, words]
            key[edit, :, words] = torch.lerp(
                key[edit, :, words], seen, (mapped * share * (total > 0))[:, None]
            )
            value[edit, :, words] *= torch.lerp(torch.ones_like(share), equalizer, share)[:, None]
        for k in self._rows_with_self():
            query[source + 1 + k, :, site.image] = query[source, :, site.image]
            key[source + 1 + k, :, site.image] = key[source, :, site.image]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=site.mask)

    def _add(self, pixels: int, seen: Tensor) -> None:
        """Adds the maps (1 + n, pixels, L) of a layer to those of its level."""
        level = self.level(pixels)
        self.sums[level] = self.sums[level] + seen if level in self.sums else seen
        self.counts[level] = self.counts.get(level, 0) + 1

    def map_level(self) -> int:
        """The recorded level to look at: a quarter of the latents' sides, or finer where that is below 8."""
        if not self.sums:
            raise UserError("no cross-attention was recorded; this network has no cross-attention layers")
        sizes = level_sizes(*self.latent)
        wanted = max(k for k in range(3) if k == 0 or (k < len(sizes) and min(sizes[k]) >= 8))
        return min(self.sums, key=lambda level: abs(level - wanted))

    def maps(self, row: int, tokens: Sequence[int]) -> Tensor:
        """The mean map (h, w), at ``map_level``, of some tokens' attention added up; row 0 is the source."""
        level = self.map_level()
        total = self.sums[level][row][:, list(tokens)].sum(-1) / self.counts[level]  # (pixels,)
        return total.reshape(level_sizes(*self.latent)[level])


@contextmanager
def controlled(model: DiffusionModel, control: AttentionControl | None) -> Iterator[None]:
    """Puts a model's attention under a control for a while; UserError where that was to touch layers and did not."""
    with model.attend(control) as layers:
        yield
    if control is not None and control.wanted and not control.touched:
        raise UserError(
            f"the attention control touched none of this network's {len(layers)} attention layers; use kind: plain"
        )


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
