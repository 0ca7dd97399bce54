"""One step and guidance: closed forms and identities."""

from __future__ import annotations

import math

import pytest
import torch

from nulltext.diffusion import KINDS, Level, Prediction, Schedule, guide, sample, step, trajectory

DOUBLE = torch.float64


def _level(kind: str, sigma: float) -> Level:
    alpha = 1 - sigma if kind == "flow" else math.sqrt(1 - sigma**2)
    return Level(torch.tensor(alpha, dtype=DOUBLE), torch.tensor(sigma, dtype=DOUBLE))


def _output(kind: str, z_0: torch.Tensor, eps: torch.Tensor, level: Level) -> torch.Tensor:
    return {"epsilon": eps, "v_prediction": level.alpha * eps - level.sigma * z_0, "flow": eps - z_0}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_output_gives_back_picture_and_noise(kind: str) -> None:
    z_0, eps, level = (
        torch.randn(2, 4, 4, 4, dtype=DOUBLE),
        torch.randn(2, 4, 4, 4, dtype=DOUBLE),
        _level(kind, 0.7),
    )
    z = level.alpha * z_0 + level.sigma * eps
    prediction = Prediction(_output(kind, z_0, eps, level), z, level, kind)
    torch.testing.assert_close(prediction.z_0, z_0)
    torch.testing.assert_close(prediction.eps, eps)
    for sigma in (0.9, 0.3, 0.0):  # and so every other level is reached exactly
        other = _level(kind, sigma)
        torch.testing.assert_close(step(prediction, other), other.alpha * z_0 + other.sigma * eps)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_identity(kind: str) -> None:
    """A step along the prediction made at its end returns to its start: what a converged inversion step relies on."""
    z, output = torch.randn(2, 4, 4, 4, dtype=DOUBLE), torch.randn(2, 4, 4, 4, dtype=DOUBLE)
    low, high = _level(kind, 0.2), _level(kind, 0.9)
    prediction = Prediction(output, z, high, kind)
    reached = step(prediction, low)
    torch.testing.assert_close(step(prediction.at(reached, low), high), z)


def test_a_flow_steps_as_euler_does() -> None:
    z, u = torch.randn(1, 4, 4, 4, dtype=DOUBLE), torch.randn(1, 4, 4, 4, dtype=DOUBLE)
    moved = step(Prediction(u, z, _level("flow", 1.0), "flow"), _level("flow", 0.6))
    torch.testing.assert_close(moved, z + (0.6 - 1.0) * u)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_commutes_with_the_reading(kind: str) -> None:
    level, z = _level(kind, 0.5), torch.randn(3, 4, 2, 2, dtype=DOUBLE)
    null, cond = (Prediction(torch.randn(3, 4, 2, 2, dtype=DOUBLE), z, level, kind) for _ in range(2))
    w = torch.tensor([1.0, 3.0, 7.5], dtype=DOUBLE).view(-1, 1, 1, 1)
    guided = guide(null, cond, w)
    torch.testing.assert_close(guided.z_0, null.z_0 + w * (cond.z_0 - null.z_0))
    torch.testing.assert_close(guided.eps, null.eps + w * (cond.eps - null.eps))
    torch.testing.assert_close(guided.output[:1], cond.output[:1])


def test_gaussian_data_has_the_closed_form_and_first_order_error() -> None:
    """For N(0, I) data the perfect network is eps = sigma z: a step multiplies z by a cosine."""
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    errors = []
    for steps in (50, 100, 200):
        schedule = Schedule.diffusion({**config, "set_alpha_to_one": False}, steps)

        def denoise(z: torch.Tensor, i: int, schedule: Schedule = schedule) -> Prediction:
            level = Level(*(x.double() for x in schedule.here(i)))
            return Prediction.from_eps(level.sigma * z, z, level)

        latents = trajectory(denoise, schedule, torch.ones(1, dtype=DOUBLE))
        for i in range(steps):
            angles = [math.acos(min(1.0, float(x.alpha))) for x in (schedule.here(i), schedule.there(i))]
            torch.testing.assert_close(
                latents[i + 1], latents[i] * math.cos(angles[0] - angles[1]), rtol=1e-6, atol=1e-6
            )
        errors.append(1 - latents[-1].item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_after_acts_at_the_end_of_each_step() -> None:
    schedule = Schedule.flow(torch.linspace(1, 0, 5), torch.arange(4))

    def still(z: torch.Tensor, i: int) -> Prediction:
        return Prediction(torch.zeros_like(z), z, schedule.here(i), "flow")

    seen = list(sample(still, schedule, torch.zeros(1, 1, 1, 1), after=lambda z, i: z + 10**i))
    assert [int(z) for z in seen] == [1, 11, 111, 1111]
