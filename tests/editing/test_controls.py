"""Attention control on diffusers' own UNets: matrices worked by hand, and laws."""

from types import SimpleNamespace

import pytest
import torch

from nulltext.editing.kinds.controls import (
    AttentionControl,
    RowControl,
    control_cross,
    controlled,
    level_sizes,
)
from nulltext.errors import UserError
from nulltext.models.attention import hooked

L, T = 7, 4


def control_of(cross=0.0, self_=0.0, mapper=None, equalizer=None, mapped=None):
    share = torch.full((T, L), cross)
    ones = torch.ones(L)
    return RowControl(
        torch.eye(L) if mapper is None else mapper,
        ones if mapped is None else mapped,
        ones if equalizer is None else equalizer,
        share,
        torch.full((T,), bool(self_)),
    )


def batch(rows, size=(8, 12), seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 4, *size, generator=generator)
    return z, torch.randn(rows, L, 12, generator=generator)


def attending(unet, control):
    """A model of nothing but this network, under a control."""
    return controlled(SimpleNamespace(attend=lambda hook: hooked(unet, hook)), control)


@torch.no_grad()
def run(unet, z, text, control=None, step=0):
    with attending(unet, control):
        if control is not None:
            control.start_step(step)
        return unet(z, 500, text).sample


def test_cross_attention_by_hand():
    source = torch.tensor([[[0.5, 0.3, 0.2]]])  # (heads, pixels, L)
    own = torch.tensor([[[0.1, 0.1, 0.8]]])
    # source token 1 is shared by target tokens 1 and 2; source token 2 has nowhere to go
    mapper = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
    ones, off = torch.ones(3), torch.zeros(1, dtype=torch.bool)

    def mixed(mapper, mapped, equalizer, share):
        return control_cross(source, own, RowControl(mapper, mapped, equalizer, share[None], off), 0)

    replace = mixed(mapper, ones, ones, ones)
    torch.testing.assert_close(replace, torch.tensor([[[0.5, 0.15, 0.35]]]))
    refine = mixed(mapper, torch.tensor([1.0, 1.0, 0.0]), ones, ones)
    torch.testing.assert_close(refine, torch.tensor([[[0.5, 0.15, 0.8]]]))
    louder = torch.tensor([1.0, 2.0, -1.0])
    reweight = mixed(torch.eye(3), ones, louder, ones)
    torch.testing.assert_close(reweight, torch.tensor([[[0.5, 0.6, -0.2]]]))
    on_top = mixed(mapper, torch.tensor([1.0, 1.0, 0.0]), louder, ones)
    torch.testing.assert_close(on_top, torch.tensor([[[0.5, 0.3, -0.8]]]))
    window = mixed(mapper, ones, ones, torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(window, torch.tensor([[[0.1, 0.15, 0.8]]]))


def test_levels_of_any_latent():
    assert level_sizes(64, 64)[:4] == [(64, 64), (32, 32), (16, 16), (8, 8)]
    assert level_sizes(9, 14) == [(9, 14), (5, 7), (3, 4), (2, 2), (1, 1)]
    control = AttentionControl([], (9, 14))
    assert [control.level(p) for p in (126, 35, 12)] == [0, 1, 2]
    with pytest.raises(UserError, match="100 positions"):
        control.level(100)


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (10, 6)])
def test_an_empty_control_is_no_control(unet, size):
    z, text = batch(3, size)
    control = AttentionControl([control_of()], size)
    assert control.rows[0].empty
    assert torch.equal(run(unet, z, text, control), run(unet, z, text))


@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_explicit_probabilities_equal_fused_attention(unet, size):
    z, text = batch(3, size)
    control = AttentionControl([control_of()], size, record=True)
    torch.testing.assert_close(run(unet, z, text, control), run(unet, z, text), atol=1e-5, rtol=1e-5)
    assert set(control.sums) == {0, 1}
    for level, sums in control.sums.items():
        height, width = level_sizes(*size)[level]
        assert sums.shape == (2, height * width, L)
        torch.testing.assert_close(sums.sum(-1) / control.counts[level], torch.ones(2, height * width))


def test_the_source_row_and_the_rows_before_it_are_left_alone(unet):
    z, text = batch(4)
    control = AttentionControl([control_of(1, 1)], (8, 12))
    torch.testing.assert_close(run(unet, z, text, control)[:3], run(unet, z, text)[:3], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(run(unet, z, text, control)[3], run(unet, z, text)[3], atol=1e-3)


def test_the_source_itself_under_full_control_stays_itself(unet):
    z, text = batch(2)
    z, text = z[[0, 1, 1]], text[[0, 1, 1]]
    plain = run(unet, z, text)
    controlled = run(unet, z, text, AttentionControl([control_of(1, 1)], (8, 12)))
    torch.testing.assert_close(controlled, plain, atol=1e-5, rtol=1e-5)


def test_with_all_source_attention_only_values_differ(unet):
    """A row with the source's own latents and permuted text sees what the mapper undoes."""
    z, text = batch(1)
    order = torch.tensor([0, 3, 1, 2, 6, 5, 4])
    mapper = torch.eye(L)[order]  # target token j is source token order[j]
    z2, text2 = z[[0, 0]], torch.cat([text, text[:, order]])
    controlled = run(unet, z2, text2, AttentionControl([control_of(1, 1, mapper)], (8, 12)))
    torch.testing.assert_close(controlled[1], controlled[0], atol=1e-5, rtol=1e-5)


def test_self_attention_takes_the_sources_map_by_hand(unet):
    """softmax(Q_s K_s) V, worked out layer by layer with explicit probabilities."""
    layer = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 24, 16, generator=generator)  # (source, edit), 4 x 6 of an 8 x 12 latent
    control = AttentionControl([control_of(0, 1)], (8, 12))
    control.start_step(0)
    with torch.no_grad(), attending(unet, control):
        out = layer(x)
        split = lambda y: y.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # noqa: E731
        q, k, v = (split(f(x)) for f in (layer.to_q, layer.to_k, layer.to_v))
        weights = (q[0] @ k[0].mT * layer.scale).softmax(-1)
        expected = layer.to_out[0]((weights @ v[1]).transpose(0, 1).flatten(1))
    torch.testing.assert_close(out[1], expected, atol=1e-5, rtol=1e-5)


def test_self_attention_at_the_latents_own_resolution_is_left_alone(unet):
    z, text = batch(2)
    control = AttentionControl([control_of(0, 1)], (8, 12))
    run(unet, z, text, control)
    assert all("mid_block" in name or "blocks.1" in name or "up_blocks.0" in name for name in control.touched)
    assert all(name.endswith("attn1.processor") for name in control.touched)


def test_each_edit_of_a_batch_has_its_own_control(unet):
    z, text = batch(3)
    both = run(unet, z, text, AttentionControl([control_of(1), control_of()], (8, 12)))
    torch.testing.assert_close(both[2], run(unet, z, text)[2], atol=1e-5, rtol=1e-5)
    alone = run(unet, z[:2], text[:2], AttentionControl([control_of(1)], (8, 12)))
    torch.testing.assert_close(both[1], alone[1], atol=1e-5, rtol=1e-5)


def test_the_control_follows_its_steps(unet):
    z, text = batch(2)
    share = torch.zeros(T, L)
    share[0] = 1
    row = control_of()
    row = RowControl(row.mapper, row.mapped, row.equalizer, share, row.self_steps)
    plain = run(unet, z, text)
    assert not torch.allclose(run(unet, z, text, AttentionControl([row], (8, 12)), step=0), plain, atol=1e-3)
    assert torch.equal(run(unet, z, text, AttentionControl([row], (8, 12)), step=1), plain)


def test_processors_come_back_whatever_happens(unet):
    before = dict(unet.attn_processors)
    with (
        pytest.raises(RuntimeError, match="midway"),
        attending(unet, AttentionControl([control_of(1)], (8, 8))),
    ):
        assert unet.attn_processors.keys() == before.keys()
        assert all(now is not before[name] for name, now in unet.attn_processors.items())
        raise RuntimeError("midway")
    assert all(now is before[name] for name, now in unet.attn_processors.items())


def test_a_control_that_touches_nothing_is_an_error(plain_unet):
    z, text = batch(2, (8, 8))
    with pytest.raises(UserError, match="touched none of this network's 0 attention layers"):
        run(plain_unet, z, text, AttentionControl([control_of(1)], (8, 8)))


def test_maps_are_read_at_a_quarter_of_the_latent_but_not_below_eight():
    for latent, level in (((64, 64), 2), ((16, 16), 1), ((8, 8), 0), ((96, 64), 2)):
        control = AttentionControl([], latent)
        for k in range(3):
            height, width = level_sizes(*latent)[k]
            control.sums[k], control.counts[k] = torch.ones(2, height * width, L), 2
        assert control.map_level() == level
        torch.testing.assert_close(control.maps(1, [2, 3]), torch.ones(level_sizes(*latent)[level]))
