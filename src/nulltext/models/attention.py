"""Attention offered to a hook: each layer shows its queries, keys and values, and takes back what was mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor


class AttentionSite:
    """One attention layer at one evaluation of the network.

    Queries, keys and values are projected when they are first read, so that a hook which declines costs nothing.

    Attributes:
        name: The layer's name in the network, such as ``mid_block.attentions.0.transformer_blocks.0.attn2.processor``.
        pixels: P, the number of image positions that attend.
        is_cross: Whether they attend to the text instead of to themselves.
    """

    def __init__(self, name: str, layer: Any, hidden: Tensor, text: Tensor | None) -> None:
        self.name = name
        self.pixels = hidden.shape[1]
        self.is_cross = text is not None
        self._layer, self._hidden, self._text = layer, hidden, text

    @cached_property
    def query(self) -> Tensor:
        """Queries (B, heads, P, c)."""
        return self._heads(self._layer.to_q(self._hidden))

    @cached_property
    def key(self) -> Tensor:
        """Keys (B, heads, L, c) of the text's L tokens, or (B, heads, P, c) in self-attention."""
        return self._heads(self._layer.to_k(self._attended))

    @cached_property
    def value(self) -> Tensor:
        """Values, the shape of the keys."""
        return self._heads(self._layer.to_v(self._attended))

    @cached_property
    def _attended(self) -> Tensor:
        if self._text is None:
            return self._hidden
        layer = self._layer
        return layer.norm_encoder_hidden_states(self._text) if layer.norm_cross else self._text

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


class HookedAttention:
    """The attention processor of a diffusers layer under a hook."""

    def __init__(self, name: str, original: Any, hook: AttentionHook) -> None:
        self.name, self.original, self.hook = name, original, hook

    def __call__(
        self,
        layer: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Attention of ``hidden_states`` (B, P, C) to the text (B, L, d), or to itself."""
        if hidden_states.ndim == 3 and attention_mask is None:
            site = AttentionSite(self.name, layer, hidden_states, encoder_hidden_states)
            mixed = self.hook(site)
            if mixed is not None:
                return site.finish(mixed)
        return self.original(layer, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)


@contextmanager
def hooked(network: Any, hook: AttentionHook | None) -> Iterator[Sequence[str]]:
    """Offers a network's attention layers to a hook, and restores its processors whatever happens.

    Args:
        network: A diffusers model with ``attn_processors``.
        hook: The hook; None leaves the network as it is.

    Yields:
        The names of all attention layers. Where a hook touched none of them, the edit did nothing.
    """
    before = dict(network.attn_processors)
    if hook is None:
        yield list(before)
        return
    network.set_attn_processor({name: HookedAttention(name, own, hook) for name, own in before.items()})
    try:
        yield list(before)
    finally:
        network.set_attn_processor(before)
