"""Joint attention offered to a hook, on the tiny random flows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import PROMPT
from torch import Tensor

from nulltext.models import DiffusionModel
from nulltext.models.attention import JointSite

SIZE = (24, 32)


def _run(model: DiffusionModel, hook: Any) -> Tensor:
    z = torch.randn(2, *model.latent_shape(SIZE), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), model.attend(hook):
        return model.predict(z, model.schedule(4, SIZE), 1, model.embed([PROMPT, ""])).output


def _mixed(site: JointSite) -> Tensor:
    return F.scaled_dot_product_attention(site.query, site.key, site.value, attn_mask=site.mask)


def test_a_hook_that_declines_is_no_hook(tiny_flow: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_flow))
    assert torch.equal(_run(model, lambda site: None), _run(model, None))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_its_own_attention_given_back_changes_nothing(tiny_flow: Path, precision: str) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_flow), precision=precision)
    tolerance = 1e-5 if precision == "32-true" else 2e-2
    torch.testing.assert_close(_run(model, _mixed), _run(model, None), atol=tolerance, rtol=tolerance)


def test_every_layer_is_offered_with_its_positions(tiny_flow: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_flow))
    seen: dict[str, JointSite] = {}

    def look(site: JointSite) -> None:
        seen[site.name] = site
        length = site.query.shape[2]
        assert site.key.shape == site.value.shape == site.query.shape and site.is_joint and not site.is_cross
        assert {*range(length)[site.image]} ^ {*range(length)[site.words]} == {*range(length)}

    _run(model, look)
    assert sorted(seen) == sorted(model.denoiser.attn_processors)
    patches, tokens = 6 * 8, sum(model.learned.encoders)
    for name, site in seen.items():
        alone = "attn2" in name
        assert site.pixels == patches == site.image.stop - site.image.start
        assert site.words.stop - site.words.start == (0 if alone else tokens)


def test_processors_come_back_after_an_error(tiny_flow: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_flow))
    before = dict(model.denoiser.attn_processors)

    def fail(site: JointSite) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        _run(model, fail)
    assert model.denoiser.attn_processors == before
