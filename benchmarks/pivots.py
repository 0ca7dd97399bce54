"""Other pivots: refined with a secant, all timesteps at once, and of second order.

In x = z / sqrt(alpha_bar) and sigma = sqrt((1 - alpha_bar) / alpha_bar) a DDIM step is x_i = x_{i+1} + (sigma_i -
sigma_{i+1}) eps_i, level 0 the noisiest. A walk back is exact where eps_i was asked at x_i itself, the level that
an inverting step reaches.
"""

from __future__ import annotations

import torch
from methods import Outcome
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step
from nulltext.inversion import start_embedding
from nulltext.inversion_settings import InversionSettings
from nulltext.pivot import expected_noise


@torch.no_grad()
def secant(
    backbone: Backbone, schedule: Schedule, z_0: Tensor, cond: TextEmbedding, tolerance: float, most: int = 4
) -> Tensor:
    """Refined as in ``ddim_invert``, each answer mixed with the one before (Anderson 1965, depth 1).

    With f the step that an answer leads to and r = f - z its residual, the next question is put where the residual
    would vanish on the line through the last two: z <- f - theta (f - f_before), theta = <r, r - r_before> /
    ||r - r_before||^2, held between -2 and 0.9.
    """
    return torch.cat(
        [
            _secant(backbone, schedule, z_0[b : b + 1], cond[b : b + 1], tolerance, most)
            for b in range(len(z_0))
        ],
        dim=1,
    )


def _secant(
    backbone: Backbone, schedule: Schedule, z_0: Tensor, cond: TextEmbedding, tolerance: float, most: int
) -> Tensor:
    pivot, seen = [z_0], list[Tensor]()
    for i in reversed(range(schedule.steps)):
        t, levels = schedule.timesteps[i], (schedule.alpha_to[i], schedule.alpha_from[i])
        z = ddim_step(pivot[-1], expected_noise(seen), *levels) if seen else pivot[-1]
        before: tuple[Tensor, Tensor] | None = None
        for _ in range(most + (len(seen) < 2)):
            eps = backbone.predict_noise(z, t, cond)
            f = ddim_step(pivot[-1], eps, *levels)
            r, z = f - z, f
            if r.square().mean() < tolerance:
                break
            if before is not None:
                change = r - before[1]
                theta = ((r * change).sum() / change.square().sum()).clamp(-2, 0.9)
                z = f - theta * (f - before[0])
            before = f, r
        pivot.append(z)
        seen = [*seen[-1:], eps]
    return torch.stack(pivot[::-1])


@torch.no_grad()
def at_once(
    backbone: Backbone,
    schedule: Schedule,
    z_0: Tensor,
    cond: TextEmbedding,
    sweeps: int,
    correct: bool = True,
) -> Tensor:
    """All T timesteps in one batch, so many times (Picard), then one sweep one by one.

    The first guess mixes the picture with one noise, the network's own at the cleanest level. A sweep asks for all
    noises at once, T forwards in one batch, and adds them up: x_i = x_T + sum_{j >= i} (sigma_j - sigma_{j+1}) eps_j.
    The correcting sweep starts each step from the noise that the last one found: T forwards one after the other.
    """
    steps, batch = schedule.steps, len(z_0)
    alpha = torch.cat([schedule.alpha_from, schedule.alpha_to[-1:]]).to(z_0.device).reshape(-1, 1, 1, 1, 1)
    sigma = ((1 - alpha) / alpha).sqrt()
    x_0 = z_0 / alpha[-1].sqrt()
    eps = backbone.predict_noise(z_0, schedule.timesteps[-1], cond).expand(steps, *z_0.shape)
    every_t = schedule.timesteps.to(z_0.device).repeat_interleave(batch)
    every_text = TextEmbedding.cat([cond] * steps)
    for sweep in range(sweeps + 1):
        x = x_0 + ((sigma[:-1] - sigma[1:]) * eps).flip(0).cumsum(0).flip(0)
        z = alpha[:-1].sqrt() * x
        if sweep < sweeps:
            eps = backbone.predict_noise(z.flatten(0, 1), every_t, every_text).unflatten(0, (steps, batch))
    pivot = [z_0]
    for i in reversed(range(steps)) if correct else ():
        levels = schedule.alpha_to[i], schedule.alpha_from[i]
        guess = ddim_step(pivot[-1], eps[i], *levels)
        found = backbone.predict_noise(guess, schedule.timesteps[i], cond)
        pivot.append(ddim_step(pivot[-1], found, *levels))
    return torch.stack(pivot[::-1]) if correct else torch.cat([z, z_0[None]])


class SecondOrder:
    """DPM-Solver++(2M) (Lu et al. 2022) as the walk, and a pivot for it.

    With D = x - sigma eps, h_i = log(sigma_i / sigma_{i+1}) and e = sigma_{i+1} / sigma_i a step of the walk is

        x_{i+1} = e x_i + (1 - e) (D_i + h_i / (2 h_{i-1}) (D_i - D_{i-1}))

    Going the other way, D_{i-1} belongs to the latents after next. Put on the line through D_i and D_{i+1}, it turns
    the inner bracket into (D_i + D_{i+1}) / 2, the trapezoidal rule: a pivot near the walk, not on it. A further sweep
    takes D_{i-1} from the one before.
    """

    def __init__(self, schedule: Schedule, device: torch.device) -> None:
        self.timesteps = schedule.timesteps
        self.alpha = torch.cat([schedule.alpha_from, schedule.alpha_to[-1:]]).to(device)
        self.sigma = ((1 - self.alpha) / self.alpha).sqrt()
        self.h = (self.sigma[:-1] / self.sigma[1:]).log()

    @torch.no_grad()
    def pivot(self, backbone: Backbone, z_0: Tensor, cond: TextEmbedding, refine: int, sweeps: int) -> Tensor:
        """The trajectory (T + 1, B, 4, h, w), noisiest first; T (1 + refine) forwards a sweep, about."""
        steps, clean = len(self.h), dict[int, Tensor]()
        for sweep in range(sweeps):
            x, pivot, eps = z_0 / self.alpha[-1].sqrt(), [z_0], dict[int, Tensor]()
            found = dict[int, Tensor]()
            for i in reversed(range(steps)):
                e, sigma = self.sigma[i + 1] / self.sigma[i], self.sigma[i]
                own, rest = self._bracket(i, found if sweep == 0 else clean, sweep)
                known = x - (1 - e) * rest
                guess = eps.get(i + 1, None)
                x_i = x if guess is None else (known + (1 - e) * own * sigma * guess) / (e + (1 - e) * own)
                for _ in range(refine + (guess is None)):
                    z = self.alpha[i].sqrt() * x_i
                    eps[i] = backbone.predict_noise(z, self.timesteps[i], cond)
                    x_i = (known + (1 - e) * own * sigma * eps[i]) / (e + (1 - e) * own)
                x, found[i] = x_i, x_i - sigma * eps[i]
                pivot.append(self.alpha[i].sqrt() * x)
            clean = found
        return torch.stack(pivot[::-1])

    def _bracket(self, i: int, clean: dict[int, Tensor], sweep: int) -> tuple[float | Tensor, float | Tensor]:
        """The bracket as own D_i + rest."""
        if i == 0 or (sweep == 0 and i + 1 not in clean):
            return 1.0, 0.0
        if sweep == 0:
            return 0.5, 0.5 * clean[i + 1]
        share = self.h[i] / (2 * self.h[i - 1])
        return 1 + share, -share * clean[i - 1]

    @torch.no_grad()
    def walk(
        self, backbone: Backbone, pivot: Tensor, cond: TextEmbedding, settings: InversionSettings
    ) -> Outcome:
        """The walk back under the source prompt, where guidance has no say."""
        x, before = pivot[0] / self.alpha[0].sqrt(), None
        for i in range(len(self.h)):
            e = self.sigma[i + 1] / self.sigma[i]
            d = x - self.sigma[i] * backbone.predict_noise(self.alpha[i].sqrt() * x, self.timesteps[i], cond)
            bracket = d if before is None else d + self.h[i] / (2 * self.h[i - 1]) * (d - before)
            x, before = e * x + (1 - e) * bracket, d
        null = start_embedding(backbone, cond, settings.start).sequence
        return Outcome(self.alpha[-1].sqrt() * x, null.expand(len(self.h), *null.shape))
