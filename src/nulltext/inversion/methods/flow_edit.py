"""FlowEdit (Kulikov et al., arXiv 2412.08629): no inversion; the difference of two predictions moves the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.inversion.anchored import Drawn
from nulltext.inversion.base import Replay


@dataclass(frozen=True)
class FlowEdit(Drawn):
    """FlowEdit (arXiv 2412.08629): each step moves the picture by how the two prompts' velocities differ under noise.

    There is no inversion: fresh noise is drawn for each step, and the file holds the source's half of the differences.
    The paper is of flows; for diffusion it is the same in latents divided by alpha.
    """

    skip: float = 0.34

    title: ClassVar[str] = "FlowEdit"

    def anchor(
        self, replay: Replay, schedule: Schedule, pivot: Tensor, residuals: Tensor | None = None
    ) -> Replay:
        """An edit starts as the clean source and asks the network under the noise of the pivot."""
        clean = pivot[-1].expand_as(pivot)
        if schedule.kind != "flow":  # a step of eps = 0 multiplies latents with alpha' / alpha
            alphas = torch.cat([schedule.alpha, schedule.alpha_next[-1:]]) / schedule.alpha_next[-1]
            clean = alphas.view(-1, 1, 1, 1, 1).to(pivot) * pivot[-1]
        shift, first = pivot[:-1] - clean[:-1], self.first(schedule)
        return replace(replay, trajectory=clean, shift=shift, added=residuals, first=first)
