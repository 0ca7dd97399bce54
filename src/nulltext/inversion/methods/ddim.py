"""The methods that learn nothing: DDIM inversion, and direct inversion (Ju et al., arXiv 2310.01506)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from nulltext.errors import UserError
from nulltext.inversion.base import InversionMethod, OnInnerStep, Replay, State, StepRecord
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class DDIM(InversionMethod):
    """DDIM inversion (Song et al. 2020): nothing is learned, so guidance leads away from the pivot."""

    title: ClassVar[str] = "DDIM"


@dataclass(frozen=True)
class Direct(DDIM):
    """Direct inversion (Ju et al., arXiv 2310.01506): the source branch is corrected to the pivot after each step.

    Its reconstruction is the VAE's. Of edits, only those that look at the source branch differ from DDIM's.
    """

    title: ClassVar[str] = "direct"
    stores_pivot: ClassVar[bool] = True

    def step(self, model: DiffusionModel, state: State, i: int, notify: OnInnerStep = None) -> StepRecord:
        """The pivot's own step; the network is not evaluated."""
        state.z = state.pivot[i + 1]
        return state.unlearned(i, state.pivot[-1])

    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The pivot: from the file, or computed again from the original."""
        cond = model.embed(inversion.prompt, inversion.size)
        nulls = self.null_texts(model, inversion, cond)
        if inversion.pivot is not None:
            return Replay(nulls, inversion.pivot[:, None].to(model.device))
        if z_0 is None:
            raise UserError(
                "method direct needs the original picture, or an inversion made with --model.method direct"
            )
        settings = (inversion.fixed_point_iterations, inversion.pivot_tolerance)
        return Replay(nulls, invert_to_noise(model, inversion.schedule(model), z_0, cond, *settings))
