"""The pivot: which level the network is evaluated at, and what refining gains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import PROMPT
from quick_inversion import random_picture

from nulltext.diffusion import Prediction, Schedule, sample, step
from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
from nulltext.inversion.base import guided_denoiser
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models import DiffusionModel
from nulltext.pixels import from_image


def _pivot(model: DiffusionModel, schedule: Schedule, k: int = 0) -> tuple:
    z_0, cond = model.encode(random_picture().pixels[None]), model.embed(PROMPT)
    return invert_to_noise(model, schedule, z_0, cond, k), cond


def test_the_network_is_told_the_level_that_a_step_reaches(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    schedule = model.schedule(3)
    pivot, cond = _pivot(model, schedule)
    assert pivot.shape == (4, 1, 4, 16, 16)
    with torch.no_grad():
        eps = model.predict(pivot[3], schedule, 2, cond).eps
    expected = step(Prediction.from_eps(eps, pivot[3], schedule.there(2)), schedule.here(2))
    torch.testing.assert_close(pivot[2], expected)


def test_fixed_point_iterations_bring_the_trajectory_back(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    schedule = model.schedule(25)
    errors = []
    for k in (0, 1, 4):
        pivot, cond = _pivot(model, schedule, k)
        with torch.no_grad():
            *_, back = sample(guided_denoiser(model, schedule, cond, [cond], 1.0), schedule, pivot[0])
        errors.append((back - pivot[-1]).square().mean().item())
    assert errors[0] > errors[1] > errors[2]


def test_a_step_is_refined_until_it_converges_and_no_longer() -> None:
    """Then sampling back meets the pivot as nearly; each picture of a batch stops where it would alone."""
    model = DiffusionModel.from_pretrained("farmyard")
    schedule, tolerance = model.schedule(10), 1e-6
    scene = random_scene(HELD_OUT_SEEDS[0])
    pixels = from_image(draw(scene, model.default_size))
    z_0 = model.encode(torch.stack([pixels, pixels.flip(2)]))
    cond = model.embed([caption(scene), "a photo of a cow"])
    found, spent = [], []
    for rows in (slice(0, 2), slice(0, 1), slice(1, 2)):
        model.forwards = 0
        found.append(invert_to_noise(model, schedule, z_0[rows], cond[rows], 30, tolerance))
        spent.append(model.forwards)
    whole, *alone = found
    torch.testing.assert_close(whole, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)
    assert all(10 < n < 60 for n in spent[1:]) and spent[0] >= 2 * max(spent[1:])
    for i in range(10):
        back = step(model.predict(whole[i], schedule, i, cond), schedule.there(i)).detach()
        assert ((back - whole[i + 1]).square().mean(dim=(1, 2, 3)) < tolerance).all()


def test_a_diverging_step_keeps_its_last_good_value() -> None:
    """Each prediction here is a multiple of the latents, so large that the second iteration moves further."""
    seen = []

    def predict(z, schedule, i, cond):
        seen.append(z)
        return Prediction.from_eps(1e3 * z, z, schedule.here(i))

    schedule = DiffusionModel.from_pretrained("farmyard").schedule(6)
    z_0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pivot = invert_to_noise(SimpleNamespace(predict=predict), schedule, z_0, None, 5, 1e-5)
    assert len(seen) == 2 * 6
    for i, first in zip(reversed(range(6)), seen[::2], strict=True):
        prediction = Prediction.from_eps(1e3 * first, pivot[i + 1], schedule.there(i))
        torch.testing.assert_close(pivot[i], step(prediction, schedule.here(i)))


@pytest.mark.parametrize(("tolerance", "forwards"), [(0.0, 3 * 6 + 2), (1e9, 6)])
def test_the_most_and_the_fewest_forwards(tiny_sd: Path, tolerance: float, forwards: int) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    z_0, cond = model.encode(random_picture().pixels[None]), model.embed(PROMPT)
    invert_to_noise(model, model.schedule(6), z_0, cond, 3, tolerance)
    assert model.forwards == forwards


def test_a_refined_pivot_costs_one_forward_for_each_iteration_and_two_more(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    for k, forwards in ((0, 5), (1, 5 + 2), (2, 10 + 2)):
        model.forwards = 0
        _pivot(model, model.schedule(5), k)
        assert model.forwards == forwards


def test_a_plain_inversion_in_few_steps_ends_in_fainter_noise():
    model = DiffusionModel.from_pretrained()
    scene = random_scene(HELD_OUT_SEEDS.start)
    z_0 = model.encode(from_image(draw(scene, model.default_size))[None])
    cond = model.embed(caption(scene))
    schedule = model.schedule(10)
    plain = invert_to_noise(model, schedule, z_0, cond)[0]
    refined = invert_to_noise(model, schedule, z_0, cond, 4)[0]
    assert plain.std() < 0.85 * refined.std()
