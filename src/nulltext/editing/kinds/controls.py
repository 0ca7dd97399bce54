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

from nulltext.editing.kinds.joint import joint_attention, word_maps
from nulltext.errors import UserError
from nulltext.models.attention import AttentionSite, JointSite
from nulltext.models.base import DiffusionModel

SELF_LEVEL = 1
"""Self-attention is taken on maps of at most half the latents' sides (32 x 32 of 64 x 64, as the reference)."""

RECORDED_PIXELS = 64 * 64
"""Cross-attention maps of more pixels are not recorded."""


@dataclass(frozen=True)
class RowControl:
    """What happens to the attention of one edited row."""

    mapper: Tensor  # (L target, L source), columns sum to one
    mapped: Tensor  # (L target,): 1 where a token has its counterpart in the source, 0 where it is new
    equalizer: Tensor  # (L target,): factor of a token's map
    share: Tensor  # (T, L target): weight of the controlled map at each step; the rest is the row's own map
    self_steps: Tensor  # (T,) bool: when the row takes the source's self-attention

    @staticmethod
    def nothing(steps: int, length: int) -> RowControl:
        """The control that changes nothing."""
        off, ones = torch.zeros(steps, dtype=torch.bool), torch.ones(length)
        return RowControl(torch.eye(length), ones, ones, torch.zeros(steps, length), off)

    def only_equalizer(self) -> RowControl:
        """The same without what it takes from the source."""
        share = self.share * (self.equalizer != 1).float()
        off = torch.zeros_like(self.self_steps)
        return RowControl(self.mapper, torch.zeros_like(self.mapped), self.equalizer, share, off)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing at any step."""
        return not (self.share.any() or self.self_steps.any())


def control_cross(source: Tensor, own: Tensor, row: RowControl, step: int) -> Tensor:
    """An edited row's probabilities (heads, pixels, L) from the source's and its own: section 3 of the paper.

    Replace and refine: a token that has a counterpart sees where that was seen, a new one where it sees itself.
    Reweight: that map times its equalizer. Nothing is renormalised.
    """
    mapper, mapped, equalizer, share = (
        x.to(source) for x in (row.mapper, row.mapped, row.equalizer, row.share[step])
    )
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
        rows = self._rows_with_cross() if site.is_cross else self._rows_with_self()
        if isinstance(site, JointSite):
            mixed = self._joint_attention(site)
        elif site.is_cross and (rows or self._recorded(site.pixels)):
            mixed = self._cross_attention(site)
        elif not site.is_cross and rows and self.level(site.pixels) >= SELF_LEVEL:
            mixed = self._self_attention(site, rows)
        else:
            return None
        if mixed is not None:
            self.touched.add(site.name)
        return mixed

    def level(self, pixels: int) -> int:
        """The level of a map with so many pixels.

        Raises:
            UserError: No level of these latents has so many.
        """
        for level, (height, width) in enumerate(level_sizes(*self.latent)):
            if height * width == pixels:
                return level
        size = f"{self.latent[0]} x {self.latent[1]}"
        raise UserError(
            f"a layer attends over {pixels} positions, at no level of a {size} latent; use kind: plain"
        )

    def _rows_with_cross(self) -> list[int]:
        return [k for k, row in enumerate(self.rows) if bool(row.share[self.step].any())]

    def _rows_with_self(self) -> list[int]:
        return [k for k, row in enumerate(self.rows) if bool(row.self_steps[self.step])]

    def _recorded(self, pixels: int) -> bool:
        return self.record and pixels <= RECORDED_PIXELS

    def _self_attention(self, site: AttentionSite, rows: list[int]) -> Tensor:
        """Fused attention in which edited rows have the source's queries and keys: softmax(Q_s K_s) V."""
        source = len(site.query) - 1 - len(self.rows)
        seen_by = torch.arange(len(site.query), device=site.query.device)
        seen_by[[source + 1 + k for k in rows]] = source
        return F.scaled_dot_product_attention(site.query[seen_by], site.key[seen_by], site.value)

    def _joint_attention(self, site: JointSite) -> Tensor | None:
        """Image and text at once, see ``joint``; None where there is nothing to control or record."""
        recorded = self._recorded(site.pixels) and site.words.stop > site.words.start
        if recorded:
            first = len(site.query) - 1 - len(self.rows)
            self._add(site.pixels, word_maps(site, first, len(self.rows[0].mapped)))
        if recorded or self._rows_with_cross() or self._rows_with_self():
            return joint_attention(site, self.rows, self.step)
        return None

    def _add(self, pixels: int, seen: Tensor) -> None:
        """Adds the maps (1 + n, pixels, L) of a layer to those of its level."""
        level = self.level(pixels)
        self.sums[level] = self.sums[level] + seen if level in self.sums else seen
        self.counts[level] = self.counts.get(level, 0) + 1

    def _cross_attention(self, site: AttentionSite) -> Tensor:
        """Fused attention for the rows left alone, explicit probabilities for the source and edited rows."""
        query, key, value = site.query, site.key, site.value
        source = len(query) - 1 - len(self.rows)
        alone = F.scaled_dot_product_attention(query[:source], key[:source], value[:source])
        with torch.autocast(query.device.type, enabled=False):  # probabilities in full precision
            scores = query[source:].float() @ key[source:].float().mT * query.shape[-1] ** -0.5
            probabilities = self.cross(scores.softmax(-1))  # (1 + n, heads, P, L)
            seen = (probabilities @ value[source:].float()).to(value.dtype)
        return torch.cat([alone, seen])

    def cross(self, probabilities: Tensor) -> Tensor:
        """Controls, and records, the cross-attention of the source and edited rows (1 + n, heads, pixels, L)."""
        controlled = probabilities.clone()
        for k in self._rows_with_cross():
            controlled[k + 1] = control_cross(probabilities[0], probabilities[k + 1], self.rows[k], self.step)
        pixels = probabilities.shape[2]
        if self._recorded(pixels):
            self._add(pixels, controlled.float().mean(1))
        return controlled

    def map_level(self) -> int:
        """The recorded level to look at: a quarter of the latents' sides, or finer where that is below 8.

        Raises:
            UserError: Nothing was recorded.
        """
        if not self.sums:
            raise UserError("no cross-attention was recorded; this network has no cross-attention layers")
        sizes = level_sizes(*self.latent)
        wanted = max(k for k in range(3) if k == 0 or (k < len(sizes) and min(sizes[k]) >= 8))
        return min(self.sums, key=lambda level: abs(level - wanted))

    def maps(self, row: int, tokens: Sequence[int]) -> Tensor:
        """The mean map (h, w), at ``map_level``, of some tokens' attention added up; row 0 is the source."""
        level = self.map_level()
        height, width = level_sizes(*self.latent)[level]
        total = self.sums[level][row][:, list(tokens)].sum(-1) / self.counts[level]  # (pixels,)
        return total.reshape(height, width)


@contextmanager
def controlled(model: DiffusionModel, control: AttentionControl | None) -> Iterator[None]:
    """Puts a model's attention under a control for a while; None leaves it as it is.

    Raises:
        UserError: The control was to touch layers and none was: the edit would silently do nothing.
    """
    with model.attend(control) as layers:
        yield
    if control is not None and control.wanted and not control.touched:
        raise UserError(
            f"the attention control touched none of this network's {len(layers)} attention layers; use kind: plain"
        )
