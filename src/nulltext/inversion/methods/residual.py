"""DirectEdit (arXiv 2605.02417): the residual of each inversion step is kept, and sampling asks at shifted latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from nulltext.inversion.base import Replay
from nulltext.inversion.methods.ddim import Direct
from nulltext.models.base import DiffusionModel

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class Residual(Direct):
    """DirectEdit (arXiv 2605.02417): the network is asked where inversion asked it, so that w = 1 comes back exactly.

    Plain inversion evaluates the network at the latents that a step leaves, sampling at those that it reached. Their
    difference, the residual, is kept for each step and added to the latents of the edit wherever the network is asked.
    It costs no evaluation. A refined pivot has no residual, so there is no fixed-point iteration.
    """

    fixed_point_iterations: int = 0

    title: ClassVar[str] = "residual"

    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The pivot, and the residual of each step where the pivot was not refined."""
        if inversion.pivot is None:
            inversion = replace(inversion, fixed_point_iterations=0)
        known = super().replay(model, inversion, z_0)
        refined = inversion.fixed_point_iterations > 0
        return known if refined else replace(known, shift=known.trajectory[1:] - known.trajectory[:-1])
