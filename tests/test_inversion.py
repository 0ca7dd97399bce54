"""The laws of the method, on tiny random models of each family."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PROMPT
from torch import nn
from torch.optim import Adam, Optimizer

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone
from nulltext.ddim import Schedule, ddim_step
from nulltext.errors import UserError
from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
from nulltext.inversion import (
    LossScale,
    NonFiniteLoss,
    invert,
    optimise,
    optimise_null_embedding,
    reconstruct,
    sample,
    start_embedding,
)
from nulltext.inversion_settings import InversionSettings
from nulltext.optimizers import NormalisedGradient
from nulltext.pictures import to_pixels
from nulltext.pivot import ddim_invert

PAPER_LIKE = {"start": 0.0, "tolerance": 0.0, "fixed_point_iterations": 0}
PAPER = InversionSettings(steps=4, inner_steps=3, **PAPER_LIKE)


def _picture(height: int = 32, width: int = 32, seed: int = 0) -> SimpleNamespace:
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return SimpleNamespace(pixels=pixels, prompt=PROMPT, crop="center", sha256="0" * 64)


def _pivot(backbone: Backbone, schedule: Schedule, pictures: list[SimpleNamespace], k: int = 0) -> tuple:
    z_0 = backbone.encode_image(torch.stack([p.pixels for p in pictures]))
    cond = backbone.embed_prompt([p.prompt for p in pictures])
    return ddim_invert(backbone, schedule, z_0, cond, fixed_point_iterations=k), cond


def test_the_pivot_asks_the_level_it_reaches(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(3)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    assert pivot.shape == (4, 1, 4, 16, 16)
    with torch.no_grad():
        eps = backbone.predict_noise(pivot[3], schedule.timesteps[2], cond)
    expected = ddim_step(pivot[3], eps, schedule.alpha_to[2], schedule.alpha_from[2])
    torch.testing.assert_close(pivot[2], expected)


def test_fixed_point_iterations_bring_the_walk_back(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(25)
    errors = []
    for k in (0, 1, 4):
        pivot, cond = _pivot(backbone, schedule, [_picture()], k)
        back = sample(backbone, schedule, pivot[0], cond, [cond], 1.0)
        errors.append((back - pivot[-1]).square().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_a_step_is_refined_until_it_stands_and_no_longer() -> None:
    """Then sampling back meets the pivot as nearly; each picture of a batch stops where it would alone."""
    backbone = Backbone.from_pretrained("farmyard")
    schedule, tolerance = backbone.schedule(10), 1e-6
    options = {"fixed_point_iterations": 30, "pivot_tolerance": tolerance}
    scene = random_scene(HELD_OUT_SEEDS[0])
    pixels = to_pixels(draw(scene, 64))
    z_0 = backbone.encode_image(torch.stack([pixels, pixels.flip(2)]))
    cond = backbone.embed_prompt([caption(scene), "a photo of a cow"])
    found, spent = [], []
    for rows in (slice(0, 2), slice(0, 1), slice(1, 2)):
        backbone.forwards = 0
        found.append(ddim_invert(backbone, schedule, z_0[rows], cond[rows], **options))
        spent.append(backbone.forwards)
    whole, *alone = found
    torch.testing.assert_close(whole, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)
    assert all(10 < n < 60 for n in spent[1:]) and spent[0] >= 2 * max(spent[1:])
    for i in range(10):
        eps = backbone.predict_noise(whole[i], schedule.timesteps[i], cond).detach()
        back = ddim_step(whole[i], eps, schedule.alpha_from[i], schedule.alpha_to[i])
        assert ((back - whole[i + 1]).square().mean(dim=(1, 2, 3)) < tolerance).all()


def test_a_step_that_refining_leads_away_from_is_refined_no_further() -> None:
    """Each answer here is a multiple of what was asked, so large that the second lies further off than the first."""
    asked = []
    network = SimpleNamespace(predict_noise=lambda z, t, cond: asked.append(z) or 1e3 * z)
    schedule = Backbone.from_pretrained("farmyard").schedule(6)
    z_0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pivot = ddim_invert(network, schedule, z_0, None, fixed_point_iterations=5, pivot_tolerance=1e-5)
    assert len(asked) == 2 * 6
    for i, first in zip(reversed(range(6)), asked[::2], strict=True):
        step = ddim_step(pivot[i + 1], 1e3 * first, schedule.alpha_to[i], schedule.alpha_from[i])
        torch.testing.assert_close(pivot[i], step)


@pytest.mark.parametrize(("tolerance", "forwards"), [(0.0, 3 * 6 + 2), (1e9, 6)])
def test_how_often_the_pivot_asks_at_most_and_at_least(
    tiny_sd: Path, tolerance: float, forwards: int
) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels, cond = _picture().pixels[None], backbone.embed_prompt(PROMPT)
    options = {"fixed_point_iterations": 3, "pivot_tolerance": tolerance}
    ddim_invert(backbone, backbone.schedule(6), backbone.encode_image(pixels), cond, **options)
    assert backbone.forwards == forwards


def test_every_family_inverts_saves_and_reconstructs(tiny: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny))
    for height, width in ((32, 32), (32, 48)):
        picture = _picture(height, width)
        inversion = invert(backbone, picture, settings=InversionSettings(steps=4, inner_steps=2))
        assert inversion.null_embeddings.shape[:2] == (4, 77)
        inversion.save(tmp_path / "inversion.safetensors")
        again = Inversion.load(tmp_path / "inversion.safetensors")
        again.check(backbone)
        assert torch.equal(again.null_embeddings, inversion.null_embeddings)
        assert again.size == (height, width)
        assert again.settings == inversion.settings
        z_0 = reconstruct(backbone, again)
        mse = (backbone.decode_latents(z_0)[0] - picture.pixels).square().mean() / 4
        assert -10 * mse.log10().item() == pytest.approx(again.psnr, abs=0.01)


def test_the_optimised_embedding_is_never_worse(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(4)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    ends = []
    for inner_steps in (0, 10):
        settings = InversionSettings(steps=4, inner_steps=inner_steps, **PAPER_LIKE)
        *_, (record, _) = optimise(backbone, schedule, pivot, cond, settings)
        ends.append((record.z - pivot[-1]).square().mean().item())
    assert ends[1] < ends[0]


def test_at_guidance_one_the_embeddings_stay(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(3)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    start = start_embedding(backbone, cond, 0.0).sequence
    settings = InversionSettings(steps=3, inner_steps=5, start=0.0, guidance_scale=1.0)
    for record, null in optimise(backbone, schedule, pivot, cond, settings):
        assert torch.equal(null, start)
        assert record.losses.shape == (0, 1)


def test_a_batch_equals_single_runs_also_with_early_stop(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(3)
    pictures = [_picture(seed=1), _picture(seed=2)]
    pivot, cond = _pivot(backbone, schedule, pictures)
    threshold = _middle_loss(backbone, schedule, pivot, cond)
    settings = InversionSettings(steps=3, inner_steps=4, early_stop_loss=threshold, **PAPER_LIKE)
    together = list(optimise(backbone, schedule, pivot, cond, settings))
    taken = torch.stack([record.inner_steps for record, _ in together])
    assert (taken[:, 0] != taken[:, 1]).any()  # the pictures stop at different times
    for b in range(2):
        alone = list(optimise(backbone, schedule, pivot[:, b : b + 1], cond[b : b + 1], settings))
        for (record, null), (expected, null_alone) in zip(together, alone, strict=True):
            torch.testing.assert_close(null[b], null_alone[0], rtol=0, atol=1e-5)
            assert record.inner_steps[b] == expected.inner_steps[0]


def _middle_loss(backbone: Backbone, schedule: Schedule, pivot: torch.Tensor, cond: object) -> float:
    """A loss between those of the two pictures at some inner step."""
    settings = InversionSettings(steps=3, inner_steps=4, **PAPER_LIKE)
    losses = torch.cat([record.losses for record, _ in optimise(backbone, schedule, pivot, cond, settings)])  # type: ignore[arg-type]
    return losses[2].mean().item()


def test_evaluations_are_counted_per_latent(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(4)
    pivot, cond = _pivot(backbone, schedule, [_picture(seed=1), _picture(seed=2)])
    assert (backbone.forwards, backbone.backwards) == (2 * 4, 0)
    list(optimise(backbone, schedule, pivot, cond, PAPER))
    assert backbone.forwards == 2 * 4 + 2 * 4 * (1 + 3 + 1)
    assert backbone.backwards == 2 * 4 * 3


def test_a_refined_pivot_costs_one_forward_a_refinement_and_two_more(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    for k, forwards in ((0, 5), (1, 5 + 2), (2, 10 + 2)):
        backbone.forwards = 0
        _pivot(backbone, backbone.schedule(5), [_picture()], k)
        assert backbone.forwards == forwards


def test_from_the_source_prompt_both_predictions_are_one_forward(tiny: Path) -> None:
    """Their graph serves the first inner step; where the loss is small enough, also the guided step."""
    backbone = Backbone.from_pretrained(str(tiny))
    schedule = backbone.schedule(4)
    pivot, cond = _pivot(backbone, schedule, [_picture()], 1)
    for tolerance, forwards, backwards in ((0.0, 4 * 3, 4 * 2), (1e9, 4, 0)):
        backbone.forwards = backbone.backwards = 0
        settings = InversionSettings(steps=4, inner_steps=2, tolerance=tolerance)
        done = list(optimise(backbone, schedule, pivot, cond, settings))
        assert (backbone.forwards, backbone.backwards) == (forwards, backwards)
        assert all(torch.equal(null, cond.sequence) == (tolerance > 0) for _, null in done)
        assert all(len(record.losses) >= 1 for record, _ in done)


def test_within_the_tolerance_a_picture_stays_as_it_is(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(3)
    pivot, cond = _pivot(backbone, schedule, [_picture(seed=1), _picture(seed=2)])
    tolerance = _middle_loss(backbone, schedule, pivot, cond)
    settings = InversionSettings(**{**PAPER_LIKE, "tolerance": tolerance}, steps=3, inner_steps=4)
    for record, _ in optimise(backbone, schedule, pivot, cond, settings):
        for b in range(2):
            taken = int(record.inner_steps[b])
            assert (record.losses[:taken, b] >= tolerance).all()
            assert (record.losses[:taken, b].diff() <= 0).all()  # a step that led away is taken back
            if taken < len(record.losses):
                assert (
                    record.losses[taken, b] < tolerance
                    or record.losses[taken, b] > record.losses[taken - 1, b]
                )


@pytest.mark.parametrize("optimizer", [Adam, NormalisedGradient])
def test_the_step_follows_a_hand_written_one(tiny_sd: Path, optimizer: type[Optimizer]) -> None:
    """Adam's first step moves each entry by lr against the sign of its gradient, the other by lr on average."""
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(4)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    null = start_embedding(backbone, cond, 0.0)
    parameter = nn.Parameter(null.sequence.clone())
    settings = InversionSettings(steps=4, inner_steps=1, **PAPER_LIKE)
    with torch.enable_grad():
        probe = nn.Parameter(null.sequence.clone())
        eps_null = backbone.predict_noise(pivot[0], schedule.timesteps[0], null.with_sequence(probe))
        eps_cond = backbone.predict_noise(pivot[0], schedule.timesteps[0], cond)
        z = ddim_step(
            pivot[0], eps_null + 7.5 * (eps_cond - eps_null), schedule.alpha_from[0], schedule.alpha_to[0]
        )
        (z - pivot[1]).square().mean().backward()
    args = (
        backbone,
        schedule,
        0,
        pivot[0],
        pivot[1],
        cond,
        null,
        parameter,
        optimizer([parameter], lr=0.01),
        settings,
    )
    record = optimise_null_embedding(*args, LossScale())
    assert probe.grad is not None
    length = probe.grad.abs() + 1e-8 if optimizer is Adam else probe.grad.square().mean().sqrt()
    expected = null.sequence - 0.01 * probe.grad / length
    torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-5)
    assert record.losses.item() == pytest.approx((z - pivot[1]).square().mean().item(), rel=1e-4)


def test_half_precision_converges_as_fp32_does(tiny_sd: Path) -> None:
    """True fp16 and bf16 weights and arithmetic; fp16 needs the loss scale."""
    ends = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        backbone = Backbone.from_pretrained(str(tiny_sd), precision=precision)
        schedule = backbone.schedule(4)
        pivot, cond = _pivot(backbone, schedule, [_picture()])
        settings = InversionSettings(steps=4, inner_steps=8, **PAPER_LIKE)
        *_, (record, null) = optimise(backbone, schedule, pivot, cond, settings)
        assert null.dtype == torch.float32
        ends[precision] = (record.losses[-1] / record.losses[0]).item()
    assert ends["16-mixed"] < 1 and ends["bf16-mixed"] < 1
    assert ends["16-mixed"] == pytest.approx(ends["32-true"], abs=0.1)


def test_inner_steps_see_the_changed_embedding_in_half_precision(tiny_sd: Path) -> None:
    """With autocast's cache on, all inner losses of a step would be the same."""
    backbone = Backbone.from_pretrained(str(tiny_sd), precision="bf16-mixed")
    schedule = backbone.schedule(2)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    settings = InversionSettings(steps=2, inner_steps=4, learning_rate_decay=0, **PAPER_LIKE)
    with torch.autocast("cpu", torch.bfloat16):
        record, _ = next(iter(optimise(backbone, schedule, pivot, cond, settings)))
    assert len(set(record.losses[:, 0].tolist())) == 4


def test_three_bad_losses_end_the_run(tiny_sd: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    schedule = backbone.schedule(2)
    pivot, cond = _pivot(backbone, schedule, [_picture()])
    pivot[1] = float("nan")
    with pytest.raises(NonFiniteLoss, match="3 times in a row"):
        list(optimise(backbone, schedule, pivot, cond, InversionSettings(steps=2)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 1001),
        ("inner_steps", -1),
        ("start", 1.5),
        ("fixed_point_iterations", -1),
        ("fixed_point_iterations", 101),
        ("detail_steps", -1),
        ("detail_steps", 1001),
        ("pivot_tolerance", -1.0),
        ("tolerance", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        InversionSettings(**{field: value})


def test_damaged_and_foreign_inversions_are_refused(tiny_sd: Path, tiny_sd_v: Path, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    path = tmp_path / "inversion.safetensors"
    inversion = invert(backbone, _picture(), settings=InversionSettings(steps=2))
    inversion.save(path)
    whole = path.read_bytes()
    with pytest.raises(UserError, match="no inversion"):
        Inversion.load(tmp_path / "other.safetensors")
    for damaged in (whole[: len(whole) // 2], b"", b"not a file of tensors", b"\xff" * 64 + whole):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            Inversion.load(path)
    path.write_bytes(whole)
    other = Backbone.from_pretrained(str(tiny_sd_v))
    other.fingerprint = "f" * 64
    with pytest.raises(UserError, match="tiny_sd_v"):
        Inversion.load(path).check(other)
