"""What methods have in common whose source stays on known latents, from which edits then depart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from nulltext.diffusion import Schedule, step
from nulltext.errors import UserError
from nulltext.inversion.base import InversionMethod, OnInnerStep, Replay, State, StepRecord, guided_denoiser
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class Anchored(InversionMethod):
    """A method whose source is the pivot itself, which the file holds; ``anchor`` says what else edits go along."""

    stores_pivot: ClassVar[bool] = True

    def learnable(self, model: DiffusionModel, text: Conditioning) -> Tensor:
        """One token of each text encoder: the file has room for no null texts that nobody reads."""
        return model.learnable(text, 1)

    def step(self, model: DiffusionModel, state: State, i: int, notify: OnInnerStep = None) -> StepRecord:
        """The pivot's own step; the network is not evaluated."""
        state.z = state.pivot[i + 1]
        return state.unlearned(i, state.pivot[-1])

    def served_by(self, inversion: Inversion) -> bool:
        """Whether the file holds the pivot as this method makes it."""
        return inversion.pivot is not None and inversion.fixed_point_iterations == self.fixed_point_iterations

    @torch.no_grad()
    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The pivot: from the file, or computed again from the original."""
        cond, schedule = model.embed(inversion.prompt, inversion.size), inversion.schedule(model)
        nulls = self.null_texts(model, inversion, cond)
        if inversion.pivot is not None and self.served_by(inversion):
            pivot = inversion.pivot[:, None].to(model.device)
        elif z_0 is not None:
            pivot = self.make_pivot(model, schedule, z_0, cond)
        else:
            raise UserError(
                f"method {self.title} needs the original picture, or an inversion that fit made with it"
            )
        added = None if inversion.residuals is None else inversion.residuals[:, None].to(model.device)
        return self.anchor(Replay(nulls, pivot), schedule, pivot, added)


@dataclass(frozen=True)
class Drawn(Anchored):
    """A method that draws its pivot, noise of its own at each level, and keeps what each step then lacks.

    Args:
        skip: Share of the steps, the noisiest, that edits leave out; more stays nearer to the source.
        source_guidance: Weight w of the source prompt.
        noise_seed: Draws other noise.
    """

    fixed_point_iterations: int = 0
    skip: float = 0.36
    source_guidance: float = 3.5
    noise_seed: int = 0

    held: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        super().__post_init__()
        self.limit("skip", 0, 0.99, "0.36 is usual")
        self.limit("source_guidance", 0, math.inf, "3.5 is usual")

    def make_pivot(
        self, model: DiffusionModel, schedule: Schedule, z_0: Tensor, cond: Conditioning
    ) -> Tensor:
        """The source under fresh noise at each level (T + 1, B, C, h, w); the same noise for all B."""
        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = torch.randn(schedule.steps, 1, *z_0.shape[1:], generator=generator).to(z_0)
        alpha, sigma = (x.view(-1, 1, 1, 1, 1).to(z_0) for x in (schedule.alpha, schedule.sigma))
        return torch.cat([alpha * z_0 + sigma * noise, z_0[None]])

    def first(self, schedule: Schedule) -> int:
        """The step that edits start with."""
        return round(self.skip * schedule.steps)

    @torch.no_grad()
    def step(self, model: DiffusionModel, state: State, i: int, notify: OnInnerStep = None) -> StepRecord:
        """What the step lacks to end where the source is, under the source prompt."""
        residuals = state.memory.setdefault("residuals", torch.zeros_like(state.pivot[1:]))
        along = self.anchor(Replay([], state.pivot), state.schedule, state.pivot)
        if i >= along.first:
            nulls = [self.null_at(model, state, i)]
            denoise = guided_denoiser(model, state.schedule, state.cond, nulls, self.source_guidance)
            here = state.schedule.here(i)
            prediction = along.ask(lambda z: denoise(z, i), along.trajectory[i], i, here)
            level = (along.schedule or state.schedule).there(i)
            residuals[i] = along.trajectory[i + 1] - step(prediction, level)
        return super().step(model, state, i, notify)
