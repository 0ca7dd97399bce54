"""The pivot: the trajectory that DDIM inversion at guidance 1 takes from a picture to noise (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step


@torch.no_grad()
def ddim_invert(
    backbone: Backbone,
    schedule: Schedule,
    z_0: Tensor,
    cond: TextEmbedding,
    *,
    fixed_point_iterations: int = 0,
    pivot_tolerance: float = 0.0,
) -> Tensor:
    """The pivot: DDIM inversion at guidance 1 (paper, section 3.1).

    The network sees the timestep of the level that a step reaches. Plain DDIM inversion asks it at the latent that
    the step leaves. A refined step asks at the latent that it reaches, so that sampling back meets the same noise:
    at first at the one where the noise of the steps before would lead, then at the one where each answer leads.

    Args:
        backbone: The model.
        schedule: T noise levels.
        z_0: The pictures' latents (B, 4, h, w).
        cond: The source prompts' embeddings, B rows.
        fixed_point_iterations: At most k refinements of each step, one forward each, and one more for the first two,
            which have too few before them to go by; 0 is plain DDIM inversion, T forwards.
        pivot_tolerance: A picture whose latents a refinement moved by less, in the mean square, is refined no further;
            nor one that would move further than the time before, since there refining leads away. 0 refines k times.

    Returns:
        The trajectory (T + 1, B, 4, h, w), noisiest first: ``pivot[0] = z_T``, ``pivot[T] = z_0``.
    """
    pivot: list[Tensor] = [z_0]
    seen: list[Tensor] = []  # the noise of the two steps before
    for i in reversed(range(schedule.steps)):
        t, a_from, a_to = schedule.timesteps[i], schedule.alpha_to[i], schedule.alpha_from[i]
        z = z_next = pivot[-1]
        if fixed_point_iterations and seen:
            z_next = ddim_step(z, expected_noise(seen), a_from, a_to)
        one_more = fixed_point_iterations == 0 or len(seen) < 2
        eps, stands = torch.zeros_like(z), torch.zeros(len(z), 1, 1, 1, dtype=torch.bool, device=z.device)
        moved = torch.full_like(stands, torch.inf, dtype=z.dtype)
        for _ in range(fixed_point_iterations + one_more):
            asked = backbone.predict_noise(z_next, t, cond)
            reached = ddim_step(z, asked, a_from, a_to)
            if pivot_tolerance:
                before, moved = moved, (reached - z_next).square().mean(dim=(1, 2, 3), keepdim=True)
                stands |= moved > before
            eps, z_next = torch.where(stands, eps, asked), torch.where(stands, z_next, reached)
            if pivot_tolerance:
                stands |= moved < pivot_tolerance
                if stands.all():
                    break
        pivot.append(z_next)
        seen = [*seen[-1:], eps]
    return torch.stack(pivot[::-1])


def expected_noise(seen: Sequence[Tensor]) -> Tensor:
    """The noise of the next step, on the line through the last two."""
    return seen[-1] if len(seen) == 1 else 2 * seen[-1] - seen[-2]
