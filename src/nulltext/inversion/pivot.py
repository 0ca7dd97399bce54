"""The pivot: the trajectory of DDIM inversion at guidance 1 from a picture to noise (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nulltext.diffusion import Prediction, Schedule, step
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning


@torch.no_grad()
def invert_to_noise(
    model: DiffusionModel,
    schedule: Schedule,
    z_0: Tensor,
    cond: Conditioning,
    iterations: int = 0,
    tolerance: float = 0.0,
) -> Tensor:
    """DDIM inversion, or Euler inversion of a flow, at guidance 1.

    The network is told the timestep of the level that a step reaches. Plain inversion evaluates it at the latents that
    the step leaves. Sampling will evaluate it at the latents that the step reaches, so the two differ; a refined step
    solves for latents where they agree, by fixed-point iteration. Its starting guess extrapolates the predictions of
    the last two steps.

    Args:
        model: The model.
        schedule: T steps.
        z_0: The pictures' latents (B, C, h, w).
        cond: The source prompts, B rows.
        iterations: Fixed-point iterations of each step at most, one forward each, and one more for the first two steps,
            which have no starting guess; 0 is plain inversion, T forwards.
        tolerance: A row is converged once an iteration moves its latents by less (mean square), and keeps its last
            value where the residual grows, since there the iteration diverges. 0 always takes all iterations.

    Returns:
        The pivot (T + 1, B, C, h, w), noisiest first: ``pivot[0] = z_T``, ``pivot[T] = z_0``.
    """
    pivot, seen = [z_0], list[Prediction]()
    for i in reversed(range(schedule.steps)):
        z = pivot[-1]
        guess = step(_extrapolate(seen, z, schedule, i), schedule.here(i)) if iterations and seen else z
        extra = iterations == 0 or len(seen) < 2
        prediction, z_next = _solve(model, schedule, i, (z, guess), cond, iterations + extra, tolerance)
        pivot.append(z_next)
        seen = [*seen[-1:], prediction]
    return torch.stack(pivot[::-1])


def _solve(
    model: DiffusionModel,
    schedule: Schedule,
    i: int,
    ends: tuple[Tensor, Tensor],
    cond: Conditioning,
    iterations: int,
    tolerance: float,
) -> tuple[Prediction, Tensor]:
    """One step from z to its guess z_next: the last prediction of each row, and the latents it leads to."""
    z, z_next = ends
    here, there = schedule.here(i), schedule.there(i)
    converged = torch.zeros(len(z), 1, 1, 1, dtype=torch.bool, device=z.device)
    residual = torch.full_like(converged, torch.inf, dtype=z.dtype)
    output = torch.zeros_like(z)
    for _ in range(iterations):
        prediction = model.predict(z_next, schedule, i, cond).at(z, there)
        reached = step(prediction, here)
        if tolerance:
            before, residual = residual, (reached - z_next).square().mean(dim=(1, 2, 3), keepdim=True)
            converged |= residual > before
        output = torch.where(converged, output, prediction.output)
        z_next = torch.where(converged, z_next, reached)
        if tolerance:
            converged |= residual < tolerance
            if converged.all():
                break
    return replace(prediction, output=output), z_next


def _extrapolate(seen: Sequence[Prediction], z: Tensor, schedule: Schedule, i: int) -> Prediction:
    """The prediction of the next step, on the line through the last two."""
    output = seen[-1].output if len(seen) == 1 else 2 * seen[-1].output - seen[-2].output
    return Prediction(output, z, schedule.there(i), seen[-1].kind)
