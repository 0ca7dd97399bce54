"""Noise levels: ``z = alpha z_0 + sigma eps``, for diffusion and for rectified flow alike."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nulltext.errors import UserError

KINDS = ("epsilon", "v_prediction", "flow")
"""What a network may predict: the noise eps; v = alpha eps - sigma z_0; the velocity eps - z_0 of a flow."""


class Level(NamedTuple):
    """A noise level: latents there are ``alpha z_0 + sigma eps``. Scalars, or (B, 1, 1, 1)."""

    alpha: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Schedule:
    """The T steps of a sampler, in sampling order: step 0 is the noisiest.

    Step i goes from ``here(i)`` to ``there(i)``; inversion goes from ``there(i)`` to ``here(i)``. In both directions
    the network is told ``t[i]``, as in the reference code of null-text inversion. Steps chain: ``there(i)`` is
    ``here(i + 1)``.
    """

    t: Tensor  # (T,), what the network is told
    alpha: Tensor  # (T,) fp32
    sigma: Tensor  # (T,) fp32
    alpha_next: Tensor  # (T,) fp32
    sigma_next: Tensor  # (T,) fp32
    kind: str  # one of KINDS

    @property
    def steps(self) -> int:
        """The number of steps T."""
        return len(self.t)

    def here(self, i: int) -> Level:
        """The level at which step i starts."""
        return Level(self.alpha[i], self.sigma[i])

    def there(self, i: int) -> Level:
        """The level at which step i ends."""
        return Level(self.alpha_next[i], self.sigma_next[i])

    def to(self, device: str | torch.device) -> Schedule:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "kind"}
        return replace(self, **moved)

    @classmethod
    def diffusion(cls, config: Mapping[str, Any], steps: int) -> Schedule:
        """The DDIM schedule of a diffusers scheduler config: alpha^2 + sigma^2 = 1.

        Args:
            config: Betas, ``timestep_spacing``, ``steps_offset``, ``set_alpha_to_one``, ``prediction_type``. The config
                of PNDM or Euler serves as well as that of DDIM.
            steps: T, from 1 to the scheduler's ``num_train_timesteps``.

        Raises:
            UserError: T is out of range, or DDIM inversion cannot use this prediction type or schedule.
        """
        from diffusers import DDIMScheduler

        total = config.get("num_train_timesteps", 1000)
        if not 1 <= steps <= total:
            raise UserError(f"steps must be between 1 and {total}, not {steps}; 50 is the paper's choice")
        scheduler = DDIMScheduler.from_config(dict(config))
        kind = scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise UserError(
                f"this model predicts {kind!r}; DDIM inversion here knows 'epsilon' and 'v_prediction'"
            )
        scheduler.set_timesteps(steps)
        alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps]
        alpha_bar_next = torch.cat([alpha_bar[1:], scheduler.final_alpha_cumprod.reshape(1)])
        _check(alpha_bar, alpha_bar_next)
        ends = (alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), alpha_bar_next.sqrt(), (1 - alpha_bar_next).sqrt())
        return cls(scheduler.timesteps, *ends, kind)

    @classmethod
    def flow(cls, sigmas: Tensor, t: Tensor) -> Schedule:
        """The Euler schedule of a rectified flow: alpha + sigma = 1.

        Args:
            sigmas: T + 1 levels, falling to the last, which is 0.
            t: (T,) what the network is told at each step.
        """
        sigmas = sigmas.float()
        return cls(t, 1 - sigmas[:-1], sigmas[:-1], 1 - sigmas[1:], sigmas[1:], "flow")


def _check(alpha_bar: Tensor, alpha_bar_next: Tensor) -> None:
    if alpha_bar.min() <= 0:
        raise UserError(
            "this schedule starts from pure noise (zero terminal signal), where DDIM inversion is undefined; "
            "set timestep_spacing to 'leading' in the scheduler's config"
        )
    if alpha_bar[-1] == alpha_bar_next[-1]:
        warnings.warn(
            "the scheduler's steps_offset of 0 makes the last step an identity: it costs a step and does nothing; "
            "set steps_offset to 1 in the scheduler's config",
            stacklevel=4,
        )
