"""Direct inversion: the source branch is put on the pivot itself (Ju et al., arXiv 2310.01506)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nulltext.errors import UserError
from nulltext.inversion.base import OnInnerStep, Replay, State, StepRecord
from nulltext.inversion.methods.ddim import DDIM
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class Direct(DDIM):
    """Direct inversion (Ju et al., arXiv 2310.01506): the source branch is corrected to the pivot after each step.

    Its reconstruction is the VAE's. Of edits, only those that look at the source branch differ from DDIM's.
    """

    title: ClassVar[str] = "direct"
    stores_pivot: ClassVar[bool] = True

    def step(
        self, model: DiffusionModel, state: State, i: int, on_inner_step: OnInnerStep | None = None
    ) -> StepRecord:
        """The pivot's own step; the network is not evaluated."""
        state.z, none = state.pivot[i + 1], state.pivot.new_zeros(0, len(state.cond))
        taken = torch.zeros(len(state.cond), dtype=torch.int64, device=state.z.device)
        return StepRecord(i, state.z, state.pivot[-1], none, none, taken, state.null[i].detach())

    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The pivot: from the file, or computed again from the original.

        Raises:
            UserError: Neither is there.
        """
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
