"""Null-text inversion (Mokady et al., CVPR 2023): Algorithm 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from nulltext.diffusion import Prediction, Schedule, guide, step
from nulltext.errors import UserError
from nulltext.inversion.base import InversionMethod, OnInnerStep, State, StepRecord, guided
from nulltext.inversion.methods.learning import InnerLoop, Learning, LossScale
from nulltext.inversion.methods.optimizers import ConjugateAdam
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class NullText(InversionMethod):
    """Null-text inversion (Mokady et al., CVPR 2023): learns one null embedding for each step.

    Args:
        inner_steps: N, optimiser steps of each timestep at most; 10 in the paper.
        last_factor: The last timestep that learns takes so many times inner_steps, since none after it corrects what it
            leaves; 1 in the paper.
        start: Where the null embeddings start: 0 the empty prompt (paper), 1 the source prompt, or between. Below 1
            each step starts where the one before ended.
        tokens: How many tokens of each text encoder are learned, from the first on; by default all. The file holds no
            others.
        optimizer: The inner optimiser, fresh at each timestep.
        learning_rate_decay: Timestep i learns at lr * (1 - decay * i); 0.01 as in the paper's code.
        tolerance: A timestep whose loss is below takes no (further) inner step; 0 always takes all, as the paper.
        keep_best: Each timestep ends with the embedding of the least loss; the paper's ends with the last.
        shortest_step: A timestep that moves the latents by less for a unit of predicted noise takes no inner step,
            since it could correct nothing; 0 for the paper.
        early_stop_loss: Timestep i ends after a loss below early_stop_loss + early_stop_growth * i; 0 never.
        early_stop_growth: See early_stop_loss; 2e-5 in the paper's code.
        fresh_guided_step: Evaluate the network again for the step after the inner loop, as the paper's code does;
            without, the last prediction serves, which saves one or two evaluations of each timestep.
    """

    steps: int = 15
    fixed_point_iterations: int = 1
    pivot_tolerance: float = 0.0
    inner_steps: int = 6
    last_factor: int = 2
    start: float = 0.0
    tokens: int | None = None
    optimizer: Callable[[Iterable[Any]], Optimizer] = ConjugateAdam
    learning_rate_decay: float = 0.0
    tolerance: float = 0.0
    keep_best: bool = True
    shortest_step: float = 0.02
    early_stop_loss: float = 0.0
    early_stop_growth: float = 0.0
    fresh_guided_step: bool = False

    title: ClassVar[str] = "null-text"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        super().__post_init__()
        if self.inner_steps < 0:
            raise UserError(f"inner_steps must be 0 or more, not {self.inner_steps}; the paper takes 10")
        if not 0 <= self.start <= 1:
            raise UserError(
                f"start must lie between 0 (empty prompt) and 1 (source prompt), not {self.start}"
            )
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"tokens must be 1 or more, not {self.tokens}; leave it out to learn all tokens")
        if not self.tolerance >= 0:
            raise UserError(
                f"tolerance must be 0 or more, not {self.tolerance}; 0 always takes all inner steps"
            )

    def learning_at(self, schedule: Schedule, i: int) -> Learning:
        """How the embedding of step i is learned; at w = 1 it has no influence."""
        learns = [self.guidance_scale != 1 and reach >= self.shortest_step for reach in _reaches(schedule)]
        factor = 1 if any(learns[i + 1 :]) else self.last_factor
        return Learning(
            factor * self.inner_steps if learns[i] else 0,
            self.optimizer,
            self.learning_rate_decay,
            self.tolerance,
            self.early_stop_loss,
            self.early_stop_growth,
            self.keep_best,
            self.fresh_guided_step,
        )

    def describe(self, model: DiffusionModel) -> dict[str, Any]:
        """The settings in plain values, the optimiser by its class and learning rate."""
        optimizer = self.optimizer([torch.zeros(1, requires_grad=True)])
        plain = super().describe(model)
        del plain["optimizer"]
        if self.tokens is None:
            del plain["tokens"]
        return {
            **plain,
            "optimizer_class": f"{type(optimizer).__module__}.{type(optimizer).__name__}",
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
        }

    def learnable(self, model: DiffusionModel, text: Conditioning) -> Tensor:
        """The first ``tokens`` of each text encoder, with what else the model learns of a text."""
        return model.learnable(text, self.tokens)

    def null_text(
        self, model: DiffusionModel, cond: Conditioning, size: tuple[int, int] | None
    ) -> Conditioning:
        """Between the empty prompt (start 0, the paper) and the source prompt (1)."""
        return Conditioning.lerp(super().null_text(model, cond, size), cond, self.start)

    def null_texts(
        self, model: DiffusionModel, inversion: Inversion, cond: Conditioning
    ) -> list[Conditioning]:
        """The learned null texts."""
        start = float(inversion.settings.get("start", 0))
        empty = super().null_text(model, cond, inversion.size)
        return inversion.null_texts(model, Conditioning.lerp(empty, cond, start))

    def step(
        self, model: DiffusionModel, state: State, i: int, on_inner_step: OnInnerStep | None = None
    ) -> StepRecord:
        """One timestep of Algorithm 1, which starts where the one before ended."""
        if i and self.start < 1 and state.warm:
            state.null[i].data.copy_(state.null[i - 1].detach())  # null_{t-1} <- null_t
        learning = self.learning_at(state.schedule, i)
        return learn(model, state, i, learning, self.guidance_scale, on_inner_step)


@torch.enable_grad()
def learn(
    model: DiffusionModel,
    state: State,
    i: int,
    learning: Learning,
    w: float,
    on_inner_step: OnInnerStep | None = None,
) -> StepRecord:
    """Learns ``state.null[i]`` and takes the guided step; done again with a smaller loss scale where fp16 overflowed.

    Raises:
        NonFiniteLoss: The loss is not a number.
    """
    scale = LossScale.of(state, model.dtype)
    record = scale.until_finite(partial(learn_null_embedding, model, state, i, learning, w, on_inner_step))
    state.z = record.z
    state.null[i].data.copy_(record.null)
    state.memory.update(record.carried)
    return record


def learn_null_embedding(
    model: DiffusionModel,
    state: State,
    i: int,
    learning: Learning,
    w: float,
    on_inner_step: OnInnerStep | None,
    scale: float,
) -> StepRecord:
    """One timestep of Algorithm 1, lines 7 to 11, for B pictures; their losses are summed, so rows stay apart."""
    schedule, target = state.schedule, state.pivot[i + 1]  # z*_{t-1}
    inner = InnerLoop(learning, i, state.null[i], state.memory, scale)  # null_t
    denoise = partial(model.predict, state.z, schedule, i)  # a text gives its prediction at z_t

    def null_text(embedding: Tensor) -> Conditioning:
        return model.with_learned(state.null_text, embedding)

    def residual(
        null: Prediction,
    ) -> Tensor:  # z_{t-1}(z_t, null_t, C) - z*_{t-1}; its mean square is the loss
        return step(guide(null, cond, w), schedule.there(i)) - target

    null, cond = first_predictions(denoise, null_text(inner.null), state.cond, w, learning.inner_steps > 0)
    inner.see(null, residual(null))
    for j in range(learning.inner_steps):
        if on_inner_step is not None:
            on_inner_step(j, inner.loss.detach())
        if not inner.wants_step():
            break
        goes_on = inner.descend() and j + 1 < learning.inner_steps  # null_t <- null_t - eta grad loss
        if not goes_on and learning.skips_last:
            break
        with torch.set_grad_enabled(goes_on):
            null = denoise(null_text(inner.null))
            inner.see(null, residual(null))
        if not goes_on:
            break
    if learning.fresh_guided_step:
        with torch.no_grad():
            prediction = guided(model, schedule, state.z, i, state.cond, null_text(inner.learned), w)
    else:
        prediction = guide(replace(null, output=inner.output), cond, w)
    return inner.record(i, step(prediction, schedule.there(i)), prediction.z_0)


def first_predictions(
    denoise: Callable[[Conditioning], Prediction],
    null: Conditioning,
    cond: Conditioning,
    w: float,
    learns: bool,
) -> tuple[Prediction, Prediction]:
    """The predictions under the null text, with its graph if it learns, and under the prompt; one if they are equal."""
    with torch.set_grad_enabled(learns):
        if w == 1 or null.equals(cond):
            prediction = denoise(cond if w == 1 else null)
            return prediction, prediction.detach()
    with torch.no_grad():
        conditional = denoise(cond)
    with torch.set_grad_enabled(learns):
        return denoise(null), conditional


def _reaches(schedule: Schedule) -> list[float]:
    """How far each step moves the latents for a unit of what the network predicts."""
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    ends = [(schedule.here(i), schedule.there(i)) for i in range(schedule.steps)]
    return [float(step(Prediction(one, none, here, schedule.kind), there).abs()) for here, there in ends]
