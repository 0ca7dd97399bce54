"""Attention offered to a hook, on diffusers' own UNets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.models import AttentionSite
from nulltext.models.attention import hooked

L = 7


def _batch(rows: int = 2, size: tuple[int, int] = (8, 12)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(rows, 4, *size, generator=generator)
    return z, torch.randn(rows, L, 12, generator=generator)


@torch.no_grad()
def _run(unet: Any, z: Tensor, text: Tensor, hook: Any = None) -> Tensor:
    with hooked(unet, hook):
        return unet(z, 500, text).sample


def _explicit(site: AttentionSite) -> Tensor:
    scores = site.query @ site.key.mT * site.query.shape[-1] ** -0.5
    return scores.softmax(-1) @ site.value


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (10, 6)])
def test_a_hook_that_declines_is_no_hook(unet: Any, size: tuple[int, int]) -> None:
    z, text = _batch(3, size)
    assert torch.equal(_run(unet, z, text, lambda site: None), _run(unet, z, text))


@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_explicit_probabilities_equal_fused_attention(unet: Any, size: tuple[int, int]) -> None:
    z, text = _batch(2, size)
    torch.testing.assert_close(_run(unet, z, text, _explicit), _run(unet, z, text), atol=1e-5, rtol=1e-5)


def test_every_layer_is_offered_once_with_its_shapes(unet: Any) -> None:
    z, text = _batch()
    seen: dict[str, AttentionSite] = {}

    def look(site: AttentionSite) -> None:
        assert site.name not in seen
        seen[site.name] = site

    with torch.no_grad(), hooked(unet, look) as names:
        unet(z, 500, text)
    assert sorted(seen) == sorted(names) == sorted(unet.attn_processors)
    for name, site in seen.items():
        assert site.is_cross == ("attn2" in name)
        width = {8 * 12: 4, 4 * 6: 8}[site.pixels]
        assert site.query.shape == (2, 2, site.pixels, width)
        assert site.key.shape == site.value.shape == (2, 2, L if site.is_cross else site.pixels, width)


def test_a_layer_takes_what_the_hook_mixed_by_hand(unet: Any) -> None:
    """softmax(Q_0 K_0) V: the second row sees through the first one's map."""
    layer = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    x = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(3))

    def hook(site: AttentionSite) -> Tensor:
        first = torch.zeros(2, dtype=torch.long)
        return F.scaled_dot_product_attention(site.query[first], site.key[first], site.value)

    with torch.no_grad(), hooked(unet, hook):
        out = layer(x)
        split = lambda y: y.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = (split(f(x)) for f in (layer.to_q, layer.to_k, layer.to_v))
        weights = (q[0] @ k[0].mT * layer.scale).softmax(-1)
        expected = layer.to_out[0]((weights @ v[1]).transpose(0, 1).flatten(1))
    torch.testing.assert_close(out[1], expected, atol=1e-5, rtol=1e-5)


def test_processors_come_back_whatever_happens(unet: Any) -> None:
    before = dict(unet.attn_processors)
    with pytest.raises(RuntimeError, match="midway"), hooked(unet, lambda site: None):
        assert unet.attn_processors.keys() == before.keys()
        assert all(now is not before[name] for name, now in unet.attn_processors.items())
        raise RuntimeError("midway")
    assert all(now is before[name] for name, now in unet.attn_processors.items())


def test_a_hook_sees_that_there_is_nothing_to_touch(plain_unet: Any) -> None:
    with hooked(plain_unet, lambda site: None) as names:
        assert list(names) == []
