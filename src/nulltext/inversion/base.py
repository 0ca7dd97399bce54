"""What an inversion method is: settings, a state, one step, and how its source is replayed for edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from nulltext.diffusion import Denoise, Prediction, Schedule, guide, step, trajectory
from nulltext.errors import UserError
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion

MAX_ITERATIONS = 100
"""More never helped: a step of the pivot converges after a few iterations, or not at all."""

OnInnerStep: TypeAlias = Callable[[int, Tensor], None]
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
    detail_noise: Tensor | None = None  # (B, C, h, w), see plain_noise
    memory: dict[str, Tensor] = field(default_factory=dict)  # what a method carries from step to step
    warm: bool = True  # whether a step may start where the one before ended; not from given embeddings


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
    skipped: int = 0  # inner steps whose loss or gradient was not finite


@dataclass(frozen=True)
class Replay:
    """The source under a method: what edits start from."""

    null_texts: list[Conditioning]  # T, B rows each
    trajectory: Tensor  # (T + 1, B, C, h, w), noisiest first; its end is the reconstruction


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
        detail_steps: Steps of a plain DDIM inversion whose noise edits take their fine detail from, one forward each;
            by default what suits the model: 8 for the farmyard, 0 for others.
    """

    steps: int = 20
    guidance_scale: float = 7.5
    fixed_point_iterations: int = 4
    pivot_tolerance: float = 1e-5
    start_sigma: float = 0.97
    detail_steps: int | None = None

    title: ClassVar[str]  # what tables and pictures call it
    stores_pivot: ClassVar[bool] = False  # whether the file holds the pivot, for replay

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        if not 1 <= self.steps <= 1000:
            raise UserError(f"steps must be between 1 and 1000, not {self.steps}; 50 is the paper's choice")
        if not self.guidance_scale >= 0:
            raise UserError(
                f"guidance_scale must be 0 or more, not {self.guidance_scale}; 7.5 is the paper's choice"
            )
        if not 0 <= self.fixed_point_iterations <= MAX_ITERATIONS:
            raise UserError(
                f"fixed_point_iterations must be between 0 and {MAX_ITERATIONS}, not {self.fixed_point_iterations}; "
                "0 is plain DDIM inversion"
            )
        if not self.pivot_tolerance >= 0:
            raise UserError(
                f"pivot_tolerance must be 0 or more, not {self.pivot_tolerance}; 0 always takes all iterations"
            )
        if not 0 < self.start_sigma <= 1:
            raise UserError(
                f"start_sigma must lie above 0 and up to 1, not {self.start_sigma}; 0.97 is usual"
            )
        if self.detail_steps is not None and not 0 <= self.detail_steps <= 1000:
            raise UserError(
                f"detail_steps must be between 0 and 1000, not {self.detail_steps}; 0 stores nothing for edits"
            )

    def null_text(
        self, model: DiffusionModel, cond: Conditioning, size: tuple[int, int] | None
    ) -> Conditioning:
        """The null text that the first step starts from, B rows: the empty prompt.

        Args:
            model: The model.
            cond: The source prompts, B rows.
            size: (height, width) of the pictures in pixels.
        """
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
        return {**plain, "detail_steps": self.detail_steps_for(model), "precision": model.precision}

    def detail_steps_for(self, model: DiffusionModel) -> int:
        """The steps of the plain inversion whose noise is stored for edits."""
        return model.edit_defaults.detail_steps if self.detail_steps is None else self.detail_steps

    @torch.no_grad()
    def begin(
        self, model: DiffusionModel, z_0: Tensor, cond: Conditioning, pivot: Tensor | None = None
    ) -> State:
        """The pivot, and everything else that comes before the first step.

        Args:
            model: The model.
            z_0: The pictures' latents (B, C, h, w).
            cond: The source prompts, B rows.
            pivot: The pivot where it is known already.
        """
        size = pixel_size(model, z_0)
        schedule, null_text = self.schedule(model, size), self.null_text(model, cond, size)
        if pivot is None:
            pivot = invert_to_noise(
                model, schedule, z_0, cond, self.fixed_point_iterations, self.pivot_tolerance
            )
        start = self.learnable(model, null_text)
        detail = plain_noise(model, z_0, cond, self.detail_steps_for(model), self.start_sigma)
        null = [start.clone() for _ in range(self.steps)]
        return State(schedule, cond, null_text, pivot, pivot[0], null, detail)

    @torch.no_grad()
    def step(
        self, model: DiffusionModel, state: State, i: int, on_inner_step: OnInnerStep | None = None
    ) -> StepRecord:
        """One guided step; ``state.z`` and ``state.null[i]`` move on. A method that learns does so here."""
        prediction = guided(
            model, state.schedule, state.z, i, state.cond, self.null_at(model, state, i), self.guidance_scale
        )
        nothing = state.z.new_zeros(0, len(state.z))
        taken = torch.zeros(len(state.z), dtype=torch.int64, device=state.z.device)
        state.z = step(prediction, state.schedule.there(i))
        return StepRecord(i, state.z, prediction.z_0, nothing, nothing, taken, state.null[i].detach())

    def null_at(self, model: DiffusionModel, state: State, i: int) -> Conditioning:
        """The null text of step i, B rows."""
        return model.with_learned(state.null_text, state.null[i].detach())

    def replay(self, model: DiffusionModel, inversion: Inversion, z_0: Tensor | None = None) -> Replay:
        """The source's null texts and its guided trajectory, from an inversion file.

        Args:
            model: The model that the inversion was made with.
            inversion: The inversion, of this method or of another that holds what this one needs.
            z_0: The latents of the original (1, C, h, w), where they are known.
        """
        cond = model.embed(inversion.prompt, inversion.size)
        nulls = self.null_texts(model, inversion, cond)
        schedule, noise = inversion.schedule(model), inversion.noise[None].to(model.device)
        denoise = guided_denoiser(model, schedule, cond, nulls, inversion.guidance_scale)
        with torch.no_grad():
            return Replay(nulls, trajectory(denoise, schedule, noise))

    def null_texts(
        self, model: DiffusionModel, inversion: Inversion, cond: Conditioning
    ) -> list[Conditioning]:
        """The null text of each of the T steps of an inversion, one row each."""
        return [self.null_text(model, cond, inversion.size)] * inversion.steps


def guided(
    model: DiffusionModel,
    schedule: Schedule,
    z: Tensor,
    i: int,
    cond: Conditioning,
    null: Conditioning,
    w: float,
) -> Prediction:
    """The guided prediction at step i, both halves in one batch; at w = 1 the null text is not evaluated."""
    if w == 1:
        return model.predict(z, schedule, i, cond)
    both = model.predict(torch.cat([z, z]), schedule, i, Conditioning.cat([null, cond]))
    return guide(both[: len(z)], both[len(z) :], w)


def guided_denoiser(
    model: DiffusionModel, schedule: Schedule, cond: Conditioning, nulls: Sequence[Conditioning], w: float
) -> Denoise:
    """The denoiser of guided sampling.

    Args:
        model: The model.
        schedule: T steps.
        cond: The prompts, B rows.
        nulls: The null text of each step, B rows each; one entry serves all steps.
        w: Guidance scale.
    """
    evaluate = partial(guided, model, schedule)
    return lambda z, i: evaluate(z, i, cond, nulls[i if len(nulls) > 1 else 0], w)


@torch.no_grad()
def plain_noise(
    model: DiffusionModel, z_0: Tensor, cond: Conditioning, steps: int, start_sigma: float = 1.0
) -> Tensor | None:
    """The noise (B, C, h, w) of a plain inversion in few steps, one forward each; None for no steps.

    The fewer and the less refined the steps of an inversion, the fainter the noise in which it ends. Edits take their
    fine detail from it (``nulltext.editing.noise``).
    """
    if not steps:
        return None
    schedule = from_sigma(model.schedule(steps, pixel_size(model, z_0)), start_sigma)
    return invert_to_noise(model, schedule, z_0, cond)[0]


def from_sigma(schedule: Schedule, start: float) -> Schedule:
    """A flow's schedule with all its levels times ``start``, the first of them; a diffusion's as it is."""
    if schedule.kind != "flow" or start == 1:
        return schedule
    sigmas = torch.cat([schedule.sigma, schedule.sigma_next[-1:]])
    return Schedule.flow(start * sigmas, start * schedule.t)


def pixel_size(model: DiffusionModel, z: Tensor) -> tuple[int, int]:
    """(height, width) in pixels of latents (B, C, h, w)."""
    return z.shape[-2] * model.vae_scale_factor, z.shape[-1] * model.vae_scale_factor
