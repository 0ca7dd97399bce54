"""What an inversion method is: settings, a state, one step, and how its source is replayed for edits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from nulltext.diffusion import Denoise, Level, Prediction, Schedule, guide, step, trajectory
from nulltext.errors import UserError
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion

MAX_ITERATIONS = 100  # of a step of the pivot: it converges after a few, or not at all

OnInnerStep: TypeAlias = Callable[[int, Tensor], None] | None
"""Is told of each inner step before it is taken: its number j and the losses (B,) then."""


@dataclass
class State:
    """An inversion of B pictures under way: tensors, and what they were computed with."""

    schedule: Schedule
    cond: Conditioning  # the source prompts, B rows
    null_text: Conditioning  # where the null embeddings start; its extras ride along with them
    pivot: Tensor  # (T + 1, B, C, h, w), noisiest first
    z: Tensor  # (B, C, h, w), the guided trajectory so far
    null: Sequence[Tensor]  # T of (B, L, d), the null embedding of each step
    memory: dict[str, Tensor] = field(default_factory=dict)  # what a method carries from step to step
    warm: bool = True  # whether a step may start where the one before ended; not from given embeddings

    def unlearned(self, i: int, z_clean: Tensor) -> StepRecord:
        """The record of a step that learned nothing."""
        nothing = self.z.new_zeros(0, len(self.z))
        taken = torch.zeros(len(self.z), dtype=torch.int64, device=self.z.device)
        return StepRecord(i, self.z, z_clean, nothing, nothing, taken, self.null[i].detach())


@dataclass(frozen=True)
class StepRecord:
    """What happened in one step, for B pictures."""

    step: int
    z: Tensor  # (B, C, h, w): the latents at the end of the step
    z_clean: Tensor  # (B, C, h, w): the clean latents that they point to
    losses: Tensor  # (n, B) fp32: || z*_{t-1} - z_{t-1} ||^2, mean over the latent, before each inner step
    grad_norms: Tensor  # (m, B): of the m inner steps
    inner_steps: Tensor  # (B,) int64: inner steps taken
    null: Tensor  # (B, L, d): the null embedding of this step
    learning_rate: Tensor | None = None  # (B,): the length of an inner step
    carried: dict[str, Tensor] = field(default_factory=dict)  # what the optimiser starts the next step with


@dataclass(frozen=True)
class Replay:
    """The source under a method: what edits start from."""

    null_texts: list[Conditioning]  # T, B rows each
    trajectory: Tensor  # (T + 1, B, C, h, w), noisiest first; its end is the reconstruction
    shift: Tensor | None = None  # (T, B, C, h, w): step i asks the network at z + shift[i]
    added: Tensor | None = None  # (T, B, C, h, w): what step i adds where it ends
    first: int = 0  # the step that edits start with; before it they are the source
    schedule: Schedule | None = None  # where steps end, if not on the levels of the inversion

    def row(self, b: int) -> Replay:
        """Picture b of the B."""
        nulls, rows = [null[b : b + 1] for null in self.null_texts], slice(b, b + 1)
        shift, added = (None if x is None else x[:, rows] for x in (self.shift, self.added))
        return replace(self, null_texts=nulls, trajectory=self.trajectory[:, rows], shift=shift, added=added)

    @property
    def held(self) -> bool:
        """Whether an edit's steps are tied to the source's, so that no other noise can start them."""
        return self.shift is not None or self.added is not None

    def ask(self, predict: Callable[[Tensor], Prediction], z: Tensor, i: int, level: Level) -> Prediction:
        """The prediction at latents z of a level, made where the method asks in step i."""
        return predict(z) if self.shift is None else predict(z + self.shift[i]).at(z, level)


@dataclass(frozen=True)
class InversionMethod:
    """How a picture is inverted; the fields are its settings.

    Args:
        steps: T, the steps of the sampler; 50 in the paper.
        guidance_scale: Weight w of classifier-free guidance; 7.5 as in the paper.
        fixed_point_iterations: Fixed-point iterations of each step of the pivot at most, one forward each; 0 is plain
            DDIM inversion.
        pivot_tolerance: A step of the pivot is converged once an iteration moves its latents by less (mean square);
            0 always takes all iterations.
        start_sigma: Flows only: the noise level that inversion ends at and sampling starts from. At 1 nothing of the
            picture would be left in the latents.
    """

    steps: int = 20
    guidance_scale: float = 7.5
    fixed_point_iterations: int = 4
    pivot_tolerance: float = 1e-5
    start_sigma: float = 0.97

    title: ClassVar[str]  # what tables and pictures call it
    stores_pivot: ClassVar[bool] = False  # whether the file holds the pivot, for replay
    held: ClassVar[bool] = False  # as of its replays
    draws: ClassVar[bool] = False  # whether the pivot is drawn: then its file serves no other method

    @classmethod
    def of(cls, inversion: Inversion) -> Self:
        """The method with the settings of an inversion, where it has settings of these names."""
        names = {f.name for f in dataclasses.fields(cls) if f.init} & inversion.settings.keys()
        try:
            return cls(**{name: inversion.settings[name] for name in names})
        except TypeError as error:
            raise UserError(f"the settings of this inversion make no sense ({error}); invert again") from None

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        self.limit("steps", 1, 1000, "50 is the paper's choice")
        self.limit("guidance_scale", 0, math.inf, "7.5 is the paper's choice")
        self.limit("fixed_point_iterations", 0, MAX_ITERATIONS, "0 is plain DDIM inversion")
        self.limit("pivot_tolerance", 0, math.inf, "0 always takes all iterations")
        if not 0 < self.start_sigma <= 1:
            raise UserError(
                f"start_sigma must lie above 0 and up to 1, not {self.start_sigma}; 0.97 is usual"
            )

    def limit(self, setting: str, low: float, high: float, hint: str) -> None:
        """Refuses the value of a setting that is out of bounds; None, where allowed, has none."""
        value = getattr(self, setting)
        if value is not None and not low <= value <= high:
            bounds = f"between {low} and {high}" if high < math.inf else f"{low} or more"
            raise UserError(f"{setting} must be {bounds}, not {value}; {hint}")

    def null_text(self, model: DiffusionModel, cond: Conditioning, size: tuple[int, int]) -> Conditioning:
        """The null text that the first step starts from, a row for each of cond: the empty prompt."""
        return model.embed("", size).expand(len(cond))

    def schedule(self, model: DiffusionModel, size: tuple[int, int] | None = None) -> Schedule:
        """The schedule of T steps for pictures of (height, width) pixels; of a flow from ``start_sigma`` on."""
        return from_sigma(model.schedule(self.steps, size), self.start_sigma)

    def learnable(self, model: DiffusionModel, text: Conditioning) -> Tensor:
        """What is learned of a null text (B, rows, d): all that the model allows."""
        return model.learnable(text)

    def describe(self, model: DiffusionModel) -> dict[str, Any]:
        """The settings in plain values, as files and checkpoints hold them."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if model.kind != "flow":
            del plain["start_sigma"]
        return {**plain, "precision": model.precision}

    @torch.no_grad()
    def begin(
        self, model: DiffusionModel, z_0: Tensor, cond: Conditioning, pivot: Tensor | None = None
    ) -> State:
        """The pivot of latents z_0 (B, C, h, w) under B prompts, unless it is given, and all else before the steps."""
        size = pixel_size(model, z_0)
        schedule, null_text = self.schedule(model, size), self.null_text(model, cond, size)
        pivot = self.make_pivot(model, schedule, z_0, cond) if pivot is None else pivot
        start = self.learnable(model, null_text)
        null = [start.clone() for _ in range(self.steps)]
        return State(schedule, cond, null_text, pivot, pivot[0], null)

    def make_pivot(
        self, model: DiffusionModel, schedule: Schedule, z_0: Tensor, cond: Conditioning
    ) -> Tensor:
        """The pivot (T + 1, B, C, h, w), noisiest first, of latents z_0 (B, C, h, w)."""
        return invert_to_noise(model, schedule, z_0, cond, self.fixed_point_iterations, self.pivot_tolerance)

    def served_by(self, inversion: Inversion) -> bool:
        """Whether the file alone is enough for ``replay``, without the original."""
        return True

    def anchor(
        self, replay: Replay, schedule: Schedule, pivot: Tensor, residuals: Tensor | None = None
    ) -> Replay:
        """What of a pivot and of residuals (T, B, C, h, w) edits go along; nothing, unless a method says so."""
        return replay

    @torch.no_grad()
    def step(self, model: DiffusionModel, state: State, i: int, notify: OnInnerStep = None) -> StepRecord:
        """One guided step; ``state.z`` and ``state.null[i]`` move on. A method that learns does so here."""
        nulls = [self.null_at(model, state, i)]
        denoise = guided_denoiser(model, state.schedule, state.cond, nulls, self.guidance_scale)
        prediction = denoise(state.z, i)
        state.z = step(prediction, state.schedule.there(i))
        return state.unlearned(i, prediction.z_0)

    def null_at(self, model: DiffusionModel, state: State, i: int) -> Conditioning:
        """The null text of step i, B rows."""
        return model.with_learned(state.null_text, state.null[i].detach())

    @torch.no_grad()
    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The source's null texts and its guided trajectory, from an inversion file.

        It may be another method's that holds what this one needs; z_0: the original's latents (1, C, h, w), if known.
        """
        cond = model.embed(inversion.prompt, inversion.size)
        nulls = self.null_texts(model, inversion, cond)
        schedule, noise = inversion.schedule(model), inversion.noise[None].to(model.device)
        denoise = guided_denoiser(model, schedule, cond, nulls, inversion.guidance_scale)
        return Replay(nulls, trajectory(denoise, schedule, noise))

    def null_texts(
        self, model: DiffusionModel, inversion: Inversion, cond: Conditioning
    ) -> list[Conditioning]:
        """The null text of each of the T steps of an inversion, one row each."""
        return [self.null_text(model, cond, inversion.size)] * inversion.steps


def guided_denoiser(
    model: DiffusionModel, schedule: Schedule, cond: Conditioning, nulls: Sequence[Conditioning], w: float
) -> Denoise:
    """The denoiser of guided sampling of B prompts at scale w, both halves in one batch.

    ``nulls`` are the null texts of the steps, B rows each; one serves all steps, and w = 1 needs none.
    """

    def denoise(z: Tensor, i: int) -> Prediction:
        if w == 1:
            return model.predict(z, schedule, i, cond)
        texts = Conditioning.cat([nulls[i if len(nulls) > 1 else 0], cond])
        both = model.predict(torch.cat([z, z]), schedule, i, texts)
        return guide(both[: len(z)], both[len(z) :], w)

    return denoise


def from_sigma(schedule: Schedule, start: float) -> Schedule:
    """A flow's schedule with all its levels times ``start``, the first of them; a diffusion's as it is."""
    if schedule.kind != "flow" or start == 1:
        return schedule
    sigmas = torch.cat([schedule.sigma, schedule.sigma_next[-1:]])
    return Schedule.flow(start * sigmas, start * schedule.t)


def pixel_size(model: DiffusionModel, z: Tensor) -> tuple[int, int]:
    """(height, width) in pixels of latents (B, C, h, w)."""
    return z.shape[-2] * model.vae_scale_factor, z.shape[-1] * model.vae_scale_factor
