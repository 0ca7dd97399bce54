"""The schedule and the step against diffusers' own schedulers, and against closed forms."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from nulltext.ddim import Schedule, ddim_step, guide, predict_clean, v_to_eps
from nulltext.errors import UserError

CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def _eps(schedule: Schedule, output: torch.Tensor, z: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    return v_to_eps(output, z, alpha_bar) if schedule.prediction_type == "v_prediction" else output


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 25, 50, 100])
@pytest.mark.parametrize("extra", [{}, {"set_alpha_to_one": True}, {"timestep_spacing": "trailing"}])
def test_sampling_equals_diffusers(prediction_type: str, steps: int, extra: dict[str, Any]) -> None:
    config = {**CONFIG, "prediction_type": prediction_type, **extra}
    schedule, theirs = Schedule.from_config(config, steps), DDIMScheduler(**config)
    theirs.set_timesteps(steps)
    assert schedule.timesteps.tolist() == theirs.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    ours = expected = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in enumerate(theirs.timesteps):
        output = torch.randn(1, 4, 8, 8, generator=generator)
        eps = _eps(schedule, output, ours, schedule.alpha_from[i])
        ours = ddim_step(ours, eps, schedule.alpha_from[i], schedule.alpha_to[i])
        expected = theirs.step(output, t, expected).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
def test_inversion_equals_diffusers(steps: int) -> None:
    schedule, theirs = Schedule.from_config(CONFIG, steps), DDIMInverseScheduler(**CONFIG)
    theirs.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    ours = expected = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in zip(reversed(range(steps)), theirs.timesteps, strict=True):
        eps = torch.randn(1, 4, 8, 8, generator=generator)
        ours = ddim_step(ours, eps, schedule.alpha_to[i], schedule.alpha_from[i])
        expected = theirs.step(eps, int(t), expected).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


def test_there_and_back_is_the_identity() -> None:
    z, eps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    a, b = torch.tensor(0.9), torch.tensor(0.2)
    torch.testing.assert_close(ddim_step(ddim_step(z, eps, a, b), eps, b, a), z, rtol=1e-5, atol=1e-5)


def test_gaussian_data_has_the_closed_form_and_first_order_error() -> None:
    """For N(0, I) data the perfect network is eps = sqrt(1 - a) z: a step multiplies z by a cosine."""
    errors = []
    for steps in (50, 100, 200):
        schedule = Schedule.from_config(CONFIG, steps)
        z = torch.ones(1, dtype=torch.float64)
        for a_from, a_to in zip(schedule.alpha_from.double(), schedule.alpha_to.double(), strict=True):
            moved = ddim_step(z, (1 - a_from).sqrt() * z, a_from, a_to)
            angle = math.acos(a_from.sqrt()) - math.acos(a_to.sqrt())
            torch.testing.assert_close(moved, z * math.cos(angle))
            z = moved
        errors.append(1 - z.item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_guidance_and_clean_prediction() -> None:
    null, cond = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert torch.equal(guide(null, cond, 7.5), torch.full_like(cond, 7.5))
    z_0, eps, a = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2), torch.tensor(0.3)
    z = a.sqrt() * z_0 + (1 - a).sqrt() * eps
    torch.testing.assert_close(predict_clean(z, eps, a), z_0)
    v = a.sqrt() * eps - (1 - a).sqrt() * z_0
    torch.testing.assert_close(v_to_eps(v, z, a), eps)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="between 1 and 1000"):
        Schedule.from_config(CONFIG, steps)


def test_unusable_schedules_are_refused() -> None:
    with pytest.raises(UserError, match="sample"):
        Schedule.from_config({**CONFIG, "prediction_type": "sample"}, 10)
    with pytest.raises(UserError, match="zero terminal"):
        zero = {**CONFIG, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        Schedule.from_config(zero, 10)


def test_an_identity_last_step_is_told() -> None:
    with pytest.warns(UserWarning, match="steps_offset"):
        Schedule.from_config({**CONFIG, "steps_offset": 0}, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Schedule.from_config(CONFIG, 50)


def test_every_schedule_brings_the_noise_down() -> None:
    for extra in ({}, {"timestep_spacing": "trailing"}):
        schedule = Schedule.from_config({**CONFIG, **extra}, 20)
        assert (schedule.alpha_to >= schedule.alpha_from).all()
