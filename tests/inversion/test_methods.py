"""The other methods, and what their files replay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import PROMPT
from quick_inversion import random_picture

from nulltext.editing import Edit, edit
from nulltext.errors import UserError
from nulltext.inversion import METHODS, InversionMethod, find_method, name_of
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models import DiffusionModel

QUICK = {"steps": 4, "fixed_point_iterations": 2, "pivot_tolerance": 0.0}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_replays_what_its_file_holds(tiny: Path, tmp_path: Path, name: str) -> None:
    model = DiffusionModel.from_pretrained(str(tiny))
    method = METHODS[name](**QUICK)
    picture = random_picture(32, 48, prompt=PROMPT)
    invert(model, picture, method=method).save(tmp_path / "inversion.safetensors")
    inversion = Inversion.load(tmp_path / "inversion.safetensors")
    assert inversion.method == name and find_method(name) is type(method)
    replay = find_method(inversion.method)().replay(model, inversion)
    assert len(replay.null_texts) == 4 and replay.trajectory.shape == (5, 1, *inversion.noise.shape)
    mse = (model.decode(replay.trajectory[-1])[0] - picture.pixels).square().mean() / 4
    assert -10 * mse.log10().item() == pytest.approx(inversion.psnr, abs=0.01)


def test_direct_reconstructs_what_the_vae_does(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture = random_picture(prompt=PROMPT)
    inversion = invert(model, picture, method=METHODS["direct"](**QUICK))
    replay = METHODS["direct"]().replay(model, inversion)
    z_0 = model.encode(picture.pixels[None])
    torch.testing.assert_close(replay.trajectory[-1], z_0)
    other = invert(model, picture, method=METHODS["ddim"](**QUICK))
    again = METHODS["direct"]().replay(model, other, z_0)
    torch.testing.assert_close(again.trajectory, replay.trajectory)
    with pytest.raises(UserError, match="needs the original"):
        METHODS["direct"]().replay(model, other)


def test_negative_prompt_comes_back_as_guidance_one_does(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture = random_picture(prompt=PROMPT)
    ends = []
    for w in (1.0, 7.5):
        inversion = invert(model, picture, method=NegativePrompt(**QUICK, guidance_scale=w))
        ends.append(NegativePrompt().replay(model, inversion).trajectory[-1])
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-3)


def test_corrections_lower_the_loss(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture, psnr = random_picture(prompt=PROMPT), []
    for corrections in (0, 8):
        method = NegativePrompt(
            **{**QUICK, "fixed_point_iterations": 0}, corrections=corrections, correction_tolerance=0.0
        )
        replayed = method.replay(model, invert(model, picture, method=method)).trajectory[-1]
        psnr.append(-(replayed - model.encode(picture.pixels[None])).square().mean().item())
    assert psnr[1] > psnr[0]


def test_names_and_import_paths() -> None:
    for name, method in METHODS.items():
        assert name_of(method()) == name
    assert find_method("nulltext.inversion.methods.ddim.DDIM") is METHODS["ddim"]
    for wrong in ("nulltxt", "no_such_module.Method", "pathlib.Path"):
        with pytest.raises(UserError, match=r"--model\.method"):
            find_method(wrong)
    assert all(issubclass(method, InversionMethod) for method in METHODS.values())


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sd_v", "tiny_sdxl", "tiny_sd3", "tiny_flux"])
def test_residual_comes_back_exactly_at_guidance_1_without_an_evaluation_more(family, request) -> None:
    """The source prompt at w = 1, sampled step by step, ends on the latents that were inverted."""
    model = DiffusionModel.from_pretrained(str(request.getfixturevalue(family)))
    picture = random_picture(prompt=PROMPT)
    method = METHODS["residual"](**{**QUICK, "fixed_point_iterations": 0})
    inversion = invert(model, picture, method=method)
    z_0 = model.encode(picture.pixels[None])
    shifted, plain = (
        edit(model, inversion, Edit(PROMPT, guidance_scale=1.0, null="empty", local_blend=None), method=name)
        for name in (method, METHODS["ddim"]())
    )
    assert (shifted.results[0].latents - z_0[0]).abs().max() < 1e-4
    assert (plain.results[0].latents - z_0[0]).abs().max() > 1e-3


def test_residual_of_a_refined_pivot_is_direct(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture = random_picture(prompt=PROMPT)
    inversion = invert(model, picture, method=METHODS["direct"](**{**QUICK, "fixed_point_iterations": 2}))
    assert METHODS["residual"]().replay(model, inversion).shift is None
