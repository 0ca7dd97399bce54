"""Attention offered to a hook: each layer shows its queries, keys and values, and takes back what was mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor


class AttentionSite:
    """One attention layer at one evaluation of the network.

    Queries, keys and values are projected when they are first read, so that a hook which declines costs nothing.

    Attributes:
        name: The layer's name in the network, such as ``mid_block.attentions.0.transformer_blocks.0.attn2.processor``.
        pixels: P, the number of image positions that attend.
        is_cross: Whether they attend to the text instead of to themselves.
        is_joint: Whether image and text attend to each other at once, as in ``JointSite``.
    """

    is_joint = False

    def __init__(self, name: str, layer: Any, hidden: Tensor, text: Tensor | None) -> None:
        self.name = name
        self.pixels = hidden.shape[1]
        self.is_cross = text is not None
        self._layer, self._hidden, self._text = layer, hidden, text

    @cached_property
    def query(self) -> Tensor:
        """Queries (B, heads, P, c)."""
        return self._projected("q")

    @cached_property
    def key(self) -> Tensor:
        """Keys (B, heads, L, c) of the text's L tokens, or (B, heads, P, c) in self-attention."""
        return self._projected("k")

    @cached_property
    def value(self) -> Tensor:
        """Values, the shape of the keys."""
        return self._projected("v")

    def _projected(self, which: str) -> Tensor:
        layer, states = self._layer, self._hidden
        if which != "q" and self._text is not None:
            states = layer.norm_encoder_hidden_states(self._text) if layer.norm_cross else self._text
        return self._heads(getattr(layer, f"to_{which}")(states))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self._layer.heads, -1)).transpose(1, 2)

    def finish(self, mixed: Tensor) -> Tensor:
        """The layer's output (B, P, C) of mixed values (B, heads, P, c)."""
        layer = self._layer
        out = layer.to_out[1](layer.to_out[0](mixed.transpose(1, 2).flatten(2)))
        return (out + self._hidden if layer.residual_connection else out) / layer.rescale_output_factor


class AttentionHook(Protocol):
    """What may replace the attention of a network's layers, such as Prompt-to-Prompt's control."""

    def __call__(self, site: AttentionSite) -> Tensor | None:
        """The mixed values (B, heads, P, c) of this layer, or None to leave the layer as it is."""


class JointSite(AttentionSite):
    """A layer in which image and text attend to each other, as in Stable Diffusion 3 and Flux.

    Queries, keys and values hold both: (B, heads, P + L, c). So does what a hook returns.

    Attributes:
        image: Where the P image positions are among them.
        words: Where the L text tokens are; none in a layer of the image alone.
        mask: What is added to the scores, broadcastable to (B, heads, P + L, P + L), or None.
    """

    is_joint = True

    def __init__(
        self,
        name: str,
        layer: Any,
        hidden: Tensor,
        text: Tensor | None,
        before: int | None = None,
        rotary: Any = None,
        mask: Tensor | None = None,
    ) -> None:
        """``before``: L where the text comes first; without a ``text`` of its own it lies inside ``hidden``."""
        super().__init__(name, layer, hidden, text)
        self.is_cross, self.mask, self._before, self._rotary = False, mask, before, rotary
        inside = before if before and text is None else 0
        length = inside if text is None else text.shape[1]
        self.pixels = hidden.shape[1] - inside
        first, second = (length, self.pixels) if before else (self.pixels, length)
        one, other = slice(0, first), slice(first, first + second)
        self.words, self.image = (one, other) if before else (other, one)

    def _projected(self, which: str) -> Tensor:
        parts = [self._normalised(self._hidden, f"to_{which}", f"norm_{which}")]
        if self._text is not None:
            added = self._normalised(self._text, f"add_{which}_proj", f"norm_added_{which}")
            parts = [added, *parts] if self._before else [*parts, added]
        joined = torch.cat(parts, dim=2)
        if self._rotary is None or which == "v":
            return joined
        from diffusers.models.embeddings import apply_rotary_emb

        return apply_rotary_emb(joined, self._rotary)

    def _normalised(self, states: Tensor, projection: str, norm: str) -> Tensor:
        heads, normalise = (
            self._heads(getattr(self._layer, projection)(states)),
            getattr(self._layer, norm, None),
        )
        return heads if normalise is None else normalise(heads)

    def finish(self, mixed: Tensor) -> Any:
        """The layer's output of mixed values: of the image, or of image and text where the text came by itself."""
        layer, joined = self._layer, mixed.transpose(1, 2).flatten(2)
        if self._text is None and self._before:
            return joined
        image = layer.to_out[1](layer.to_out[0](joined[:, self.image]))
        if self._text is None:
            return image
        words = joined[:, self.words]
        return image, words if getattr(layer, "context_pre_only", False) else layer.to_add_out(words)


class HookedAttention:
    """The attention processor of a diffusers layer under a hook.

    In joint attention the image's positions come first, as in Stable Diffusion 3, or the ``tokens`` of the text, as in
    Flux, whose later layers have both in one sequence.
    """

    def __init__(self, name: str, original: Any, hook: AttentionHook, tokens: int = 0) -> None:
        self.name, self.original, self.hook = name, original, hook
        kind = type(original).__name__
        self.before = tokens if kind == "FluxAttnProcessor" else None
        self.is_joint = kind in ("JointAttnProcessor2_0", "FluxAttnProcessor")

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Attention of ``hidden_states`` (B, P, C) to the text (B, L, d), to itself, or of both to both."""
        site: AttentionSite | None = None
        if self.is_joint:
            extras = (self.before, image_rotary_emb, attention_mask)
            site = JointSite(self.name, layer, hidden_states, encoder_hidden_states, *extras)
        elif hidden_states.ndim == 3 and attention_mask is None:
            site = AttentionSite(self.name, layer, hidden_states, encoder_hidden_states)
        mixed = None if site is None else self.hook(site)
        if site is not None and mixed is not None:
            return site.finish(mixed)
        rotary = {} if image_rotary_emb is None else {"image_rotary_emb": image_rotary_emb}
        return self.original(layer, hidden_states, encoder_hidden_states, attention_mask, **rotary, **kwargs)


@contextmanager
def hooked(network: Any, hook: AttentionHook | None, tokens: int = 0) -> Iterator[Sequence[str]]:
    """Offers a network's attention layers to a hook, and restores its processors whatever happens.

    Args:
        network: A diffusers model with ``attn_processors``.
        hook: The hook; None leaves the network as it is.
        tokens: L, the text tokens that some networks put before the image's positions.

    Yields:
        The names of all attention layers. Where a hook touched none of them, the edit did nothing.
    """
    before = dict(network.attn_processors)
    if hook is None:
        yield list(before)
        return
    network.set_attn_processor(
        {name: HookedAttention(name, own, hook, tokens) for name, own in before.items()}
    )
    try:
        yield list(before)
    finally:
        network.set_attn_processor(before)
