"""The other methods, and what their files replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from conftest import PROMPT
from quick_inversion import random_picture

from nulltext.editing import Edit, edit
from nulltext.errors import UserError
from nulltext.inversion import METHODS, InversionMethod, find_method, method_for, name_of
from nulltext.inversion.base import guided_denoiser
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.edit_friendly import posterior_mean
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models import DiffusionModel
from nulltext.models.conditioning import Conditioning

QUICK = {"steps": 4, "fixed_point_iterations": 2, "pivot_tolerance": 0.0}


def quick(name: str, **settings: object) -> InversionMethod:
    """A method with those of the settings that it has."""
    kind = METHODS[name]
    known = {f.name for f in fields(kind) if f.init}
    return kind(**{k: v for k, v in (QUICK | settings).items() if k in known})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_replays_what_its_file_holds(tiny: Path, tmp_path: Path, name: str) -> None:
    model = DiffusionModel.from_pretrained(str(tiny))
    method = quick(name)
    picture = random_picture(32, 48, prompt=PROMPT)
    invert(model, picture, method=method).save(tmp_path / "inversion.safetensors")
    inversion = Inversion.load(tmp_path / "inversion.safetensors")
    assert inversion.method == name and find_method(name) is type(method)
    replay = method_for(inversion).replay(model, inversion)
    assert len(replay.null_texts) == 4 and replay.trajectory.shape == (5, 1, *inversion.noise.shape)
    mse = (model.decode(replay.trajectory[-1])[0] - picture.pixels).square().mean() / 4
    assert -10 * mse.log10().item() == pytest.approx(inversion.psnr, abs=0.01)


def test_direct_reconstructs_what_the_vae_does(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture = random_picture(prompt=PROMPT)
    inversion = invert(model, picture, method=quick("direct"))
    replay = method_for(inversion).replay(model, inversion)
    z_0 = model.encode(picture.pixels[None])
    torch.testing.assert_close(replay.trajectory[-1], z_0)
    other = invert(model, picture, method=quick("ddim"))
    again = method_for(other, "direct").replay(model, other, z_0)
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


FAMILIES = ["tiny_sd", "tiny_sd_v", "tiny_sdxl", "tiny_sd3", "tiny_flux"]
EXACT = {"residual": 1.0, "edit_friendly": 3.5, "flow_edit": 3.5}
"""Methods that come back to the picture's latents, and the guidance of the source prompt at which they do."""


@pytest.fixture
def in_64_bits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], DiffusionModel]:
    """Loads models whose networks compute in 64 bits: in 32, a random network enlarges what CPUs round differently."""
    monkeypatch.setattr(DiffusionModel, "precision", "32-true")  # that of the latents

    def load(place: Path) -> DiffusionModel:
        model = DiffusionModel.from_pretrained(str(place))
        model.denoiser.double()
        network = model.network

        def exact(z: torch.Tensor, t: torch.Tensor, text: Conditioning) -> torch.Tensor:
            extras = {k: x.double() if x.is_floating_point() else x for k, x in text.extras.items()}
            return network(
                z.double(), t, replace(text, sequence=text.sequence.double(), extras=extras)
            ).float()

        model.network = exact
        return model

    return load


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.filterwarnings("ignore:.*CPU Autocast only supports")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_source_prompt_comes_back_exactly(family, name, in_64_bits, request) -> None:
    """Sampled step by step at the source's guidance, an edit ends on the latents that were inverted."""
    model = in_64_bits(request.getfixturevalue(family))
    picture, method = random_picture(prompt=PROMPT), quick(name, skip=0.25)
    inversion = invert(model, picture, method=method)
    z_0 = model.encode(picture.pixels[None])
    same = Edit(PROMPT, guidance_scale=EXACT[name], null="empty", local_blend=None)
    (edited,) = edit(model, inversion, same).results
    torch.testing.assert_close(edited.latents, z_0[0], rtol=1e-4, atol=1e-4)
    stronger = replace(same, guidance_scale=10.0)
    (edited,) = edit(model, inversion, stronger).results
    assert (edited.latents - z_0[0]).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:.*CPU Autocast only supports")
@pytest.mark.parametrize("family", FAMILIES)
def test_residual_costs_no_evaluation_more_than_ddim_which_does_not_come_back(
    family, in_64_bits, request
) -> None:
    model = in_64_bits(request.getfixturevalue(family))
    picture, cost, away = random_picture(prompt=PROMPT), [], []
    same = Edit(PROMPT, guidance_scale=1.0, null="empty", local_blend=None)
    for name in ("residual", "ddim"):
        before = model.forwards
        inversion = invert(model, picture, method=quick(name, fixed_point_iterations=0))
        (edited,) = edit(model, inversion, same).results
        cost.append(model.forwards - before)
        away.append(float((edited.latents - model.encode(picture.pixels[None])[0]).abs().max()))
    assert cost[0] <= cost[1] and away[0] < 1e-4 < 1e-3 < away[1]


def test_what_a_file_can_serve(tiny_sd: Path, tmp_path: Path) -> None:
    """Nothing is inverted again where the file has the pivot; a file of drawn noise serves its own method only."""
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture, change = random_picture(prompt=PROMPT), Edit("a red hat", kind="plain", local_blend=None)
    inversions = {}
    for name in METHODS:
        path = tmp_path / f"{name}.safetensors"
        invert(model, picture, method=quick(name, fixed_point_iterations=0)).save(path)
        inversions[name] = Inversion.load(path)
    for made_by, wanted, evaluations in (
        ("direct", "direct", 2),  # of each step: null text and prompt
        ("residual", "residual", 2),
        ("direct", "residual", 2),
        ("residual", "direct", 2),
        ("ddim", "residual", 2 + 1 + 2),  # its source, its pivot again
        ("residual", "ddim", 2 + 2),
        ("flow_edit", "flow_edit", 2),
    ):
        before = model.forwards
        edit(model, inversions[made_by], change, method=wanted)
        skipped = quick(wanted).first(model.schedule(4)) if wanted == "flow_edit" else 0
        assert model.forwards - before == evaluations * (4 - skipped), (made_by, wanted)
    for made_by, wanted in (("flow_edit", "ddim"), ("ddim", "flow_edit"), ("flow_edit", "edit_friendly")):
        with pytest.raises(UserError, match=f"fit --model.method {wanted}") as raised:
            edit(model, inversions[made_by], change, method=wanted)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="leave out seed"):
        edit(model, inversions["residual"], replace(change, seed=1, local_blend="auto"))


def test_residual_takes_no_refined_pivot_but_makes_its_own(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    picture = random_picture(prompt=PROMPT)
    refined, plain = (invert(model, picture, method=quick(name)) for name in ("direct", "residual"))
    with pytest.raises(UserError, match="needs the original"):
        method_for(refined, "residual").replay(model, refined)
    z_0 = model.encode(picture.pixels[None])
    again, own = (method_for(i, "residual").replay(model, i, z_0) for i in (refined, plain))
    torch.testing.assert_close(again.shift, own.shift)


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sd3"])
def test_the_steps_of_edit_friendly_have_the_variance_of_the_posterior(family, request) -> None:
    """With s^2 + sigma_eta^2 = sigma'^2, s^2 = sigma'^2 / sigma^2 (sigma^2 - (alpha / alpha')^2 sigma'^2)."""
    schedule = DiffusionModel.from_pretrained(str(request.getfixturevalue(family))).schedule(5)
    mean = posterior_mean(schedule)
    ratio = schedule.alpha / schedule.alpha_next
    noise = (schedule.sigma_next / schedule.sigma).square() * (
        schedule.sigma.square() - ratio.square() * schedule.sigma_next.square()
    )
    torch.testing.assert_close(mean.sigma_next.square() + noise, schedule.sigma_next.square())
    assert torch.equal(mean.alpha_next, schedule.alpha_next)


def test_flow_edit_is_the_difference_of_two_velocities(tiny_sd3: Path) -> None:
    """Algorithm 1 of its paper, written out: z <- z + (s' - s) (V(z + z_src - x_0, target) - V(z_src, source))."""
    model = DiffusionModel.from_pretrained(str(tiny_sd3))
    picture, method = random_picture(prompt=PROMPT), quick("flow_edit", skip=0.5, source_guidance=2.0)
    inversion = invert(model, picture, method=method)
    change = Edit("a red hat", kind="plain", local_blend=None, guidance_scale=5.0, null="learned")
    (edited,) = edit(model, inversion, change).results
    x_0, schedule = model.encode(picture.pixels[None]), inversion.schedule(model)
    source, target, null = (model.embed(p, (32, 32)) for p in (PROMPT, "a red hat", ""))
    z = x_0
    with torch.no_grad():
        for i in range(2, 4):
            noised = inversion.pivot[i][None]
            ours = guided_denoiser(model, schedule, target, [null], 5.0)(z + noised - x_0, i).output
            theirs = guided_denoiser(model, schedule, source, [null], 2.0)(noised, i).output
            z = z + (schedule.sigma_next[i] - schedule.sigma[i]) * (ours - theirs)
    torch.testing.assert_close(edited.latents, z[0], rtol=1e-4, atol=1e-4)
