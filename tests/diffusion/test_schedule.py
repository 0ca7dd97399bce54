"""The schedule and the step against diffusers' own schedulers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, FlowMatchEulerDiscreteScheduler

from nulltext.diffusion import Prediction, Schedule, step
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


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 25, 50, 100])
@pytest.mark.parametrize("extra", [{}, {"set_alpha_to_one": True}, {"timestep_spacing": "trailing"}])
def test_sampling_equals_diffusers(prediction_type: str, steps: int, extra: dict[str, Any]) -> None:
    config = {**CONFIG, "prediction_type": prediction_type, **extra}
    schedule, theirs = Schedule.diffusion(config, steps), DDIMScheduler(**config)
    theirs.set_timesteps(steps)
    assert schedule.t.tolist() == theirs.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    ours = expected = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in enumerate(theirs.timesteps):
        output = torch.randn(1, 4, 8, 8, generator=generator)
        ours = step(Prediction(output, ours, schedule.here(i), prediction_type), schedule.there(i))
        expected = theirs.step(output, t, expected).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
def test_inversion_equals_diffusers(steps: int) -> None:
    schedule, theirs = Schedule.diffusion(CONFIG, steps), DDIMInverseScheduler(**CONFIG)
    theirs.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    ours = expected = torch.randn(1, 4, 8, 8, generator=generator)
    for i, t in zip(reversed(range(steps)), theirs.timesteps, strict=True):
        eps = torch.randn(1, 4, 8, 8, generator=generator)
        ours = step(Prediction.from_eps(eps, ours, schedule.there(i)), schedule.here(i))
        expected = theirs.step(eps, int(t), expected).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("steps", [4, 20, 28, 50])
def test_flow_sampling_equals_diffusers(steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(steps)
    schedule = Schedule.flow(theirs.sigmas, theirs.timesteps)
    generator = torch.Generator().manual_seed(0)
    ours = expected = torch.randn(1, 16, 8, 8, generator=generator)
    for i, t in enumerate(theirs.timesteps):
        velocity = torch.randn(1, 16, 8, 8, generator=generator)
        ours = step(Prediction(velocity, ours, schedule.here(i), "flow"), schedule.there(i))
        expected = theirs.step(velocity, t, expected).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [3, 7, 20, 30, 50])
def test_steps_chain(spacing: str, steps: int) -> None:
    schedule = Schedule.diffusion({**CONFIG, "timestep_spacing": spacing}, steps)
    for i in range(steps - 1):
        assert schedule.there(i) == schedule.here(i + 1)
    assert (schedule.alpha_next >= schedule.alpha).all()
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(steps))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="between 1 and 1000"):
        Schedule.diffusion(CONFIG, steps)


def test_unusable_schedules_are_refused() -> None:
    with pytest.raises(UserError, match="sample"):
        Schedule.diffusion({**CONFIG, "prediction_type": "sample"}, 10)
    with pytest.raises(UserError, match="zero terminal"):
        zero = {**CONFIG, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        Schedule.diffusion(zero, 10)


def test_an_identity_last_step_is_told() -> None:
    with pytest.warns(UserWarning, match="steps_offset"):
        Schedule.diffusion({**CONFIG, "steps_offset": 0}, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Schedule.diffusion(CONFIG, 50)
