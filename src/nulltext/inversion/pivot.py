"""The pivot: the trajectory of DDIM inversion at guidance 1 from a picture to noise (paper, section 3.1)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nulltext.diffusion import Level, Prediction, Schedule, step
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
    """DDIM inversion, or Euler inversion of a flow, at guidance 1, of latents z_0 (B, C, h, w) under B prompts.

    The network is told the timestep of the level that a step reaches. Plain inversion evaluates it at the latents that
    the step leaves. Sampling will evaluate it at the latents that the step reaches, so the two differ; a refined step
    solves for latents where they agree, by fixed-point iteration. Its starting guess extrapolates the predictions of
    the last two steps.

    Each step takes at most so many fixed-point iterations, one forward each, and one more in the first two steps, which
    have no starting guess; 0 is plain inversion, T forwards. A row is converged once an iteration moves its latents by
    less than the tolerance (mean square), and keeps its last value where the residual grows, since there the iteration
    diverges. A tolerance of 0 always takes all iterations.

    Returns:
        The pivot (T + 1, B, C, h, w), noisiest first: ``pivot[0] = z_T``, ``pivot[T] = z_0``.
    """
    pivot, seen = [z_0], list[Prediction]()
    for i in reversed(range(schedule.steps)):
        z, here, there = pivot[-1], schedule.here(i), schedule.there(i)
        guess = z
        if iterations and seen:  # on the line through the last two predictions
            output = seen[-1].output if len(seen) == 1 else 2 * seen[-1].output - seen[-2].output
            guess = step(Prediction(output, z, there, seen[-1].kind), here)

        def predict(z_next: Tensor, i: int = i, z: Tensor = z, there: Level = there) -> Prediction:
            return model.predict(z_next, schedule, i, cond).at(z, there)

        extra = iterations == 0 or len(seen) < 2
        prediction, z_next = _solve(predict, guess, here, iterations + extra, tolerance)
        pivot.append(z_next)
        seen = [*seen[-1:], prediction]
    return torch.stack(pivot[::-1])


def _solve(
    predict: Callable[[Tensor], Prediction], z_next: Tensor, here: Level, iterations: int, tolerance: float
) -> tuple[Prediction, Tensor]:
    """One step from its guess z_next: the last prediction of each row, and the latents it leads to."""
    converged = torch.zeros(len(z_next), 1, 1, 1, dtype=torch.bool, device=z_next.device)
    residual = torch.full_like(converged, torch.inf, dtype=z_next.dtype)
    output = torch.zeros_like(z_next)
    for _ in range(iterations):
        prediction = predict(z_next)
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
