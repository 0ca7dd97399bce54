"""Edit-friendly DDPM inversion (Huberman-Spiegelglas, Kulikov and Michaeli, arXiv 2304.06140)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.inversion.anchored import Drawn
from nulltext.inversion.base import Replay


@dataclass(frozen=True)
class EditFriendly(Drawn):
    """Edit-friendly DDPM inversion (arXiv 2304.06140): the noise of each DDPM step is found that leads along the pivot.

    The pivot is the picture under noise drawn for each level apart, so each step's noise holds the picture's structure.
    An edit goes the DDPM steps of its own prompt and adds the same noise. The paper is of diffusion; a flow takes the
    steps of the same posterior variance.
    """

    title: ClassVar[str] = "edit-friendly"

    def anchor(
        self, replay: Replay, schedule: Schedule, pivot: Tensor, residuals: Tensor | None = None
    ) -> Replay:
        """The noise of each step; a step goes to the mean of the DDPM posterior."""
        return replace(replay, added=residuals, first=self.first(schedule), schedule=posterior_mean(schedule))


def posterior_mean(schedule: Schedule) -> Schedule:
    """The schedule whose steps end on the mean of q(z' | z, z_0) (Ho et al. 2020, equation 7).

    With s^2 = sigma'^2 (1 - (alpha sigma' / (alpha' sigma))^2) of posterior variance, the mean is
    alpha' z_0 + sqrt(sigma'^2 - s^2) eps.
    """
    alpha, sigma, beyond, left = schedule.alpha, schedule.sigma, schedule.alpha_next, schedule.sigma_next
    return replace(schedule, sigma_next=left.square() * alpha / (beyond * sigma))
