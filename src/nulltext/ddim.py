"""Deterministic diffusion (DDIM): the noise schedule, one symmetric step, guidance.

A latent at noise level alpha_bar is ``z = sqrt(alpha_bar) z_0 + sqrt(1 - alpha_bar) eps``. DDIM (Song et al. 2020,
eq. 12 with sigma = 0) moves it to another level along the same ``eps``; sampling and inversion are the same step
with its two ends exchanged.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """The T noise levels that a sampler visits, in sampling order: step 0 is the noisiest.

    Sampling step i goes from ``alpha_from[i]`` to ``alpha_to[i]``; inversion goes the other way. In both directions
    the network is asked at ``timesteps[i]``, as the reference does: the printed formula would ask an inverting step
    at the level it leaves, not at the one it reaches.
    """

    timesteps: Tensor  # (T,) int64
    alpha_from: Tensor  # (T,) fp32, alpha_bar at the timestep
    alpha_to: Tensor  # (T,) fp32, alpha_bar one step closer to the picture
    prediction_type: str  # "epsilon" or "v_prediction"

    @property
    def steps(self) -> int:
        """The number of steps T."""
        return len(self.timesteps)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], steps: int) -> Schedule:
        """The DDIM schedule of any diffusers scheduler config.

        Args:
            config: A diffusers scheduler's config: betas, ``timestep_spacing``, ``steps_offset``,
                ``set_alpha_to_one``, ``prediction_type``. PNDM's or Euler's serve as well as DDIM's.
            steps: T, the number of steps, 1 to the scheduler's ``num_train_timesteps``.

        Raises:
            UserError: steps out of range, or a prediction type or schedule that DDIM inversion cannot use.
        """
        from diffusers import DDIMScheduler

        total = config.get("num_train_timesteps", 1000)
        if not 1 <= steps <= total:
            raise UserError(f"steps must be between 1 and {total}, not {steps}; 50 is the paper's choice")
        scheduler = DDIMScheduler.from_config(dict(config))
        prediction_type = scheduler.config.prediction_type
        if prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                f"this model predicts {prediction_type!r}; DDIM inversion here knows 'epsilon' and 'v_prediction'"
            )
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        alpha_bar = scheduler.alphas_cumprod
        reached = timesteps - total // steps
        alpha_to = torch.where(reached >= 0, alpha_bar[reached.clamp(min=0)], scheduler.final_alpha_cumprod)
        schedule = cls(timesteps, alpha_bar[timesteps], alpha_to, prediction_type)
        schedule._check()
        return schedule

    def _check(self) -> None:
        if self.alpha_from.min() <= 0:
            raise UserError(
                "this schedule starts from pure noise (zero terminal signal), where DDIM inversion is undefined; "
                "set timestep_spacing to 'leading' in the scheduler's config"
            )
        if self.alpha_from[-1] == self.alpha_to[-1]:
            warnings.warn(
                "the scheduler's steps_offset of 0 makes the last step an identity: it costs a step and does nothing; "
                "set steps_offset to 1 in the scheduler's config",
                stacklevel=3,
            )


def ddim_step(z: Tensor, eps: Tensor, alpha_from: Tensor, alpha_to: Tensor) -> Tensor:
    """Moves latents from one noise level to another along eps (Song et al. 2020, eq. 12, sigma = 0).

    Serves sampling (alpha_to > alpha_from) and inversion (alpha_to < alpha_from) alike.

    Args:
        z: Latents at level alpha_from (B, 4, h, w).
        eps: The predicted noise (B, 4, h, w).
        alpha_from: alpha_bar of the level that z is at (scalar).
        alpha_to: alpha_bar of the level to reach (scalar).
    """
    return alpha_to.sqrt() * predict_clean(z, eps, alpha_from) + (1 - alpha_to).sqrt() * eps


def guide(eps_null: Tensor, eps_cond: Tensor, w: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): w = 1 is the conditional prediction alone."""
    return eps_null + w * (eps_cond - eps_null)


def predict_clean(z: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """The clean latents z_0 that z at level alpha_bar and noise eps point to (B, 4, h, w)."""
    return (z - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def v_to_eps(v: Tensor, z: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that a v-prediction means (Salimans and Ho 2022): v = sqrt(a) eps - sqrt(1 - a) z_0."""
    return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * z
