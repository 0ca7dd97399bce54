"""Prompt-to-Prompt (Hertz et al., arXiv 2208.01626): edited rows of a batch see through the source row's attention.

``with attending(unet, control):`` sets one kind of attention processor and always restores what was there. A layer
that the control does not touch at a step runs its own processor; where only self-attention is carried over, the
edited rows take the source's queries and keys and stay on fused attention; explicit probabilities are computed for the
rows whose cross-attention is controlled or recorded, and for no others. Layers are told apart by their resolution
relative to the latent, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.errors import UserError

SELF_LEVEL = 1
"""Self-attention is carried over on maps of at most half the latent's sides (32 x 32 of 64 x 64, as the reference)."""

RECORDED_PIXELS = 64 * 64
"""Cross-attention maps of more pixels are not recorded."""


@dataclass(frozen=True)
class RowControl:
    """What happens to the attention of one edited row; the defaults do nothing."""

    mapper: Tensor  # (L target, L source), columns sum to one
    mapped: Tensor  # (L target,): 1 where a token has its counterpart in the source, 0 where it is new
    equalizer: Tensor  # (L target,): what a token's map is multiplied with
    share: Tensor  # (T, L target): how much of all this is taken at each step, the rest is the row's own map
    self_steps: Tensor  # (T,) bool: when the row takes the source's self-attention

    @staticmethod
    def nothing(steps: int, length: int) -> RowControl:
        """The control that changes nothing."""
        off = torch.zeros(steps, dtype=torch.bool)
        ones = torch.ones(length)
        return RowControl(torch.eye(length), ones, ones, torch.zeros(steps, length), off)

    @property
    def empty(self) -> bool:
        """Whether it changes nothing at any step."""
        return not (self.share.any() or self.self_steps.any())


def control_cross(
    source: Tensor, own: Tensor, mapper: Tensor, mapped: Tensor, equalizer: Tensor, share: Tensor
) -> Tensor:
    """The cross-attention of an edited row, section 3 of the paper, its three edits in one.

    Replace and refine: a token that has a counterpart sees where that was seen, a new one where it sees itself.
    Reweight: that map times its equalizer. While the window is open (share 1) this is taken, otherwise the row's own
    map. Nothing is renormalised.

    Args:
        source: The source row's probabilities (heads, pixels, L).
        own: The edited row's (heads, pixels, L).
        mapper: (L target, L source).
        mapped: (L target,).
        equalizer: (L target,).
        share: (L target,).
    """
    edited = torch.lerp(own, source @ mapper.T, mapped) * equalizer
    return torch.lerp(own, edited, share)


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The (height, width) of a UNet's maps for latents of that size, level 0 the latent's own."""
    sizes = [(height, width)]
    while max(sizes[-1]) > 1:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


@dataclass
class AttentionControl:
    """The controls of the edited rows of a batch, the step they are at, and the maps seen so far.

    In the batch, the source row comes right before the edited ones, as the last rows: ``[..., source, edit 1, ...,
    edit n]``. Rows before them, the unconditional half, are left alone.
    """

    rows: Sequence[RowControl]
    latent: tuple[int, int]  # (h, w)
    record: bool = False  # whether to add up cross-attention maps
    step: int = 0
    sums: dict[int, Tensor] = field(
        default_factory=dict
    )  # level: (1 + n, pixels, L), sums over layers and steps
    counts: dict[int, int] = field(default_factory=dict)  # level: how many maps were added
    touched: set[str] = field(default_factory=set)  # the names of the layers that were
    wanted: bool = False  # whether any step was to touch one

    def start_step(self, step: int) -> None:
        """Tells which of the T steps the next evaluation of the UNet belongs to."""
        self.step = step
        self.wanted |= self.record or bool(self._rows_with_cross() or self._rows_with_self())

    def level(self, pixels: int) -> int:
        """The level of a map with so many pixels.

        Raises:
            UserError: No level of this latent has so many.
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

    def self_rows(self, pixels: int) -> list[int]:
        """The edits that take the source's self-attention in a layer of so many pixels."""
        rows = self._rows_with_self()
        return rows if rows and self.level(pixels) >= SELF_LEVEL else []

    def touches_cross(self, pixels: int) -> bool:
        """Whether cross-attention of so many pixels needs explicit probabilities at this step."""
        return bool(self._rows_with_cross()) or (self.record and pixels <= RECORDED_PIXELS)

    def cross(self, probabilities: Tensor) -> Tensor:
        """Controls, and records, the cross-attention of the source and edited rows (1 + n, heads, pixels, L)."""
        controlled = probabilities.clone()
        for k in self._rows_with_cross():
            row = self.rows[k]
            parts = (row.mapper, row.mapped, row.equalizer, row.share[self.step])
            controlled[k + 1] = control_cross(
                probabilities[0], probabilities[k + 1], *(x.to(probabilities) for x in parts)
            )
        pixels = probabilities.shape[2]
        if self.record and pixels <= RECORDED_PIXELS:
            level = self.level(pixels)
            seen = controlled.float().mean(1)  # (1 + n, pixels, L)
            self.sums[level] = self.sums[level] + seen if level in self.sums else seen
            self.counts[level] = self.counts.get(level, 0) + 1
        return controlled

    def map_level(self) -> int:
        """The recorded level to look at: a quarter of the latent's sides, or finer where that is below 8.

        Raises:
            UserError: Nothing was recorded.
        """
        if not self.sums:
            raise UserError("no cross-attention was recorded; this UNet has no cross-attention layers")
        sizes = level_sizes(*self.latent)
        wanted = max(k for k in range(3) if k == 0 or (k < len(sizes) and min(sizes[k]) >= 8))
        return min(self.sums, key=lambda level: abs(level - wanted))

    def maps(self, row: int, tokens: Sequence[int]) -> Tensor:
        """The mean map (h, w), at ``map_level``, of some tokens' attention added up; row 0 is the source."""
        level = self.map_level()
        height, width = level_sizes(*self.latent)[level]
        total = self.sums[level][row][:, list(tokens)].sum(-1) / self.counts[level]  # (pixels,)
        return total.reshape(height, width)


class ControlledAttention:
    """The attention processor of a layer under an ``AttentionControl``."""

    def __init__(self, name: str, original: Any, control: AttentionControl) -> None:
        self.name, self.original, self.control = name, original, control

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Attention of ``hidden_states`` (B, pixels, c) to the text (B, L, d), or to itself."""
        pixels, control, text = hidden_states.shape[1], self.control, encoder_hidden_states
        rows = control.self_rows(pixels) if text is None and hidden_states.ndim == 3 else []
        if rows:
            mixed = self._self_attention(attn, hidden_states, rows)
        elif text is not None and control.touches_cross(pixels):
            mixed = self._cross_attention(attn, hidden_states, text)
        else:
            return self.original(attn, hidden_states, text, *args, **kwargs)
        control.touched.add(self.name)
        out = attn.to_out[1](
            attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        )  # (B, heads, p, c') -> (B, p, c)
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor

    def _self_attention(self, attn: Any, hidden_states: Tensor, rows: list[int]) -> Tensor:
        """Fused attention in which edited rows have the source's queries and keys: softmax(Q_s K_s) V."""
        query, key, value = self._project(attn, hidden_states, hidden_states)
        source = len(query) - 1 - len(self.control.rows)
        seen_by = torch.arange(len(query), device=query.device)
        seen_by[[source + 1 + k for k in rows]] = source
        return F.scaled_dot_product_attention(query[seen_by], key[seen_by], value)

    def _cross_attention(self, attn: Any, hidden_states: Tensor, text: Tensor) -> Tensor:
        """Fused attention for the rows left alone, explicit probabilities for the source and edited rows."""
        query, key, value = self._project(attn, hidden_states, text)
        source = len(query) - 1 - len(self.control.rows)
        alone = F.scaled_dot_product_attention(query[:source], key[:source], value[:source])
        with torch.autocast(
            query.device.type, enabled=False
        ):  # probabilities are compared, so in full precision
            scores = query[source:].float() @ key[source:].float().mT * query.shape[-1] ** -0.5
            probabilities = self.control.cross(scores.softmax(-1))  # (1 + n, heads, p, L)
            seen = (probabilities @ value[source:].float()).to(value.dtype)
        return torch.cat([alone, seen])

    @staticmethod
    def _project(attn: Any, hidden_states: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, heads, p, c/heads), keys and values (B, heads, L, c/heads)."""
        if attn.norm_cross and text is not hidden_states:
            text = attn.norm_encoder_hidden_states(text)
        projected = (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in projected)
        return query, key, value


@contextmanager
def attending(unet: Any, control: AttentionControl | None) -> Iterator[None]:
    """Puts a UNet's attention under a control, and restores its processors whatever happens.

    Args:
        unet: A diffusers ``UNet2DConditionModel``.
        control: The control; None leaves the UNet as it is.

    Raises:
        UserError: The control was to touch layers and none was: an edit that silently does nothing.
    """
    if control is None:
        yield
        return
    before = dict(unet.attn_processors)
    unet.set_attn_processor({name: ControlledAttention(name, old, control) for name, old in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)
    if control.wanted and not control.touched:
        raise UserError(
            f"the attention control touched none of this UNet's {len(before)} attention layers; use kind: plain"
        )
