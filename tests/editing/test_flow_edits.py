"""Edits of flow transformers: plain, masked, other noise, several at once, attention control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltext.editing import Edit, edit
from nulltext.editing.edit import EditResult
from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

SOURCE, TARGET = "a photo of a cat", "a photo of a dog"
SIZE = (24, 32)


@pytest.fixture
def made(tiny_flow: Path) -> tuple[DiffusionModel, Inversion]:
    """A tiny flow and a picture inverted with it."""
    model = DiffusionModel.from_pretrained(str(tiny_flow))
    pixels = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return model, invert(model, pixels, SOURCE, NullText(steps=3, inner_steps=1, guidance_scale=2.0))


def _edits(made: tuple[DiffusionModel, Inversion], *edits: Edit, **options: Any) -> list[EditResult]:
    return edit(made[0], made[1], edits, **options).results


def _plain(prompt: str = TARGET, **options: Any) -> Edit:
    return Edit(prompt, **{"kind": "plain", "local_blend": None, "keep_pixels": False, **options})


def test_the_sources_own_prompt_is_the_reconstruction(made: tuple[DiffusionModel, Inversion]) -> None:
    with pytest.warns(UserWarning, match="is the source's own"):
        edited = edit(made[0], made[1], [_plain(SOURCE)])
    torch.testing.assert_close(edited.results[0].picture, edited.reconstruction.cpu(), atol=1e-4, rtol=1e-4)


def test_edits_in_a_batch_are_those_made_alone(made: tuple[DiffusionModel, Inversion]) -> None:
    edits = [_plain(), _plain("a photo of two cats", guidance_scale=4.0)]
    together = _edits(made, *edits)
    alone = [_edits(made, one)[0] for one in edits]
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.latents, theirs.latents, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0].latents, together[1].latents, atol=1e-3)


def test_a_given_mask_holds_everything_outside_it(made: tuple[DiffusionModel, Inversion]) -> None:
    mask = torch.zeros(SIZE)
    mask[:, :16] = 1
    (result,) = _edits(made, _plain(local_blend="auto", mask=mask, null="learned"))
    source = NullText().replay(*made).trajectory[-1][0]
    moved = (result.latents - source).abs().amax(0)
    assert float(moved[:, 8:].max()) < 1e-4 < float(moved[:, :8].max())


def test_the_automatic_mask_comes_from_the_velocities(made: tuple[DiffusionModel, Inversion]) -> None:
    (result,) = _edits(made, _plain(local_blend="auto"))
    assert result.mask is not None and result.mask.shape == (12, 16)
    assert 0 <= float(result.mask.min()) and 0 < float(result.mask.max()) <= 1


def test_a_seed_draws_other_noise_inside_the_mask(made: tuple[DiffusionModel, Inversion]) -> None:
    mask = torch.zeros(SIZE)
    mask[:, :16] = 1
    one, two = _edits(made, *(_plain(local_blend="auto", mask=mask, seed=seed) for seed in (1, 2)))
    assert float((one.latents - two.latents)[..., :8].abs().max()) > 1e-2
    torch.testing.assert_close(one.latents[..., 8:], two.latents[..., 8:], atol=1e-4, rtol=1e-4)


def _controlled(made: tuple[DiffusionModel, Inversion], **options: Any) -> Tensor:
    settings = {"kind": "replace", "cross_replace": 0.0, "self_replace": 0.0, "local_blend": None, **options}
    (result,) = _edits(made, Edit(TARGET, **settings))
    return result.latents


def test_each_control_acts_and_none_does_not(made: tuple[DiffusionModel, Inversion]) -> None:
    plain = _edits(made, _plain())[0].latents
    torch.testing.assert_close(_controlled(made), plain, atol=1e-4, rtol=1e-4)
    for options in ({"cross_replace": 1.0}, {"self_replace": 1.0}):
        assert float((_controlled(made, **options) - plain).abs().max()) > 1e-4


def test_a_louder_word_moves_the_edit_and_factor_one_does_not(made: tuple[DiffusionModel, Inversion]) -> None:
    def heard(factor: float) -> Tensor:
        options = {"cross_replace": 1.0, "self_replace": 0.0, "local_blend": None}
        return _edits(made, Edit(TARGET, kind="reweight", equalizer={"dog": factor}, **options))[0].latents

    replaced = _controlled(made, cross_replace=1.0)
    torch.testing.assert_close(heard(1.0), replaced, atol=1e-4, rtol=1e-4)
    assert float((heard(4.0) - replaced).abs().max()) > 1e-4


def test_words_are_found_where_they_are_looked_at(made: tuple[DiffusionModel, Inversion]) -> None:
    (result,) = _edits(made, _plain(local_blend="dog"), attention=["dog", "cat"])
    assert result.mask is not None and set(result.mask.unique().tolist()) <= {0.0, 1.0}
    for seen in result.attention.values():
        assert seen.shape == (6, 8) and float(seen.min()) >= 0 and 0 < float(seen.sum()) < 48


@pytest.mark.parametrize("method", ["ddim", "negative_prompt", "direct"])
def test_other_methods_reproduce_the_source(made: tuple[DiffusionModel, Inversion], method: str) -> None:
    (result,) = _edits(made, _plain(), method=method)
    assert bool(result.latents.isfinite().all())
