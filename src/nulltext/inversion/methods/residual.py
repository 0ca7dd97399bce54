"""DirectEdit (arXiv 2605.02417): the residual of each inversion step is kept, and sampling asks at shifted latents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.inversion.anchored import Anchored
from nulltext.inversion.base import Replay


@dataclass(frozen=True)
class Residual(Anchored):
    """DirectEdit (arXiv 2605.02417): the network is asked where inversion asked it, so that w = 1 comes back exactly.

    Plain inversion evaluates the network at the latents that a step leaves, sampling at those that it reached. Their
    difference, the residual, is kept for each step and added to the latents of the edit wherever the network is asked.
    It costs no evaluation. A refined pivot has no residual, so there is no fixed-point iteration.
    """

    fixed_point_iterations: int = field(default=0, init=False)

    title: ClassVar[str] = "residual"
    held: ClassVar[bool] = True

    def anchor(
        self, replay: Replay, schedule: Schedule, pivot: Tensor, residuals: Tensor | None = None
    ) -> Replay:
        """The residuals of the pivot's steps, which are where the network is asked."""
        return replace(replay, shift=pivot[1:] - pivot[:-1])
