"""Null-text inversion (Mokady et al., CVPR 2023): Algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from nulltext.diffusion import Prediction, Schedule, guide, step
from nulltext.inversion.base import InversionMethod, OnInnerStep, State, StepRecord, guided_denoiser
from nulltext.inversion.methods.learning import InnerLoop, until_finite
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
        last_factor: The last timestep that learns takes this many times inner_steps, since no later one corrects
            what it leaves; 1 in the paper.
        start: Where the null embeddings start: 0 the empty prompt (paper), 1 the source prompt, or between. Below 1
            each step starts where the one before ended.
        tokens: How many tokens of each text encoder are learned, from the first on; by default all. The file holds no
            others.
        optimizer: The inner optimiser, fresh at each timestep.
        learning_rate_decay: Timestep i learns at lr * (1 - decay * i); 0.01 as in the paper's code.
        tolerance: A timestep stops learning once its loss is below this; 0 always takes all inner steps, as the paper.
        keep_best: Each timestep ends with the embedding of the least loss; the paper's ends with the last.
        shortest_step: A timestep that moves the latents by less than this, for predicted noise of 1, does not learn: it
            could correct nothing. 0 for the paper, where all learn.
        early_stop_loss: Timestep i ends after a loss below early_stop_loss + early_stop_growth * i; 0 never.
        early_stop_growth: See early_stop_loss; 2e-5 in the paper's code.
        fresh_guided_step: Evaluate the network again for the step after the inner loop, as the paper's code does;
            without, the last prediction serves, which saves one or two evaluations of each timestep.
    """

    steps: int = 10
    fixed_point_iterations: int = 1
    pivot_tolerance: float = 0.0
    inner_steps: int = 9
    last_factor: int = 3
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
        self.limit("inner_steps", 0, math.inf, "the paper takes 10")
        self.limit("start", 0, 1, "0 is the empty prompt, 1 the source prompt")
        self.limit("tokens", 1, math.inf, "leave it out to learn all tokens")
        self.limit("tolerance", 0, math.inf, "0 always takes all inner steps")

    def inner_steps_at(self, schedule: Schedule, i: int) -> int:
        """N of step i: none where nothing could be corrected, more where nothing after it corrects."""
        learns = [_reach(schedule, k) >= self.shortest_step for k in range(i, schedule.steps)]
        if self.guidance_scale == 1 or not learns[0]:
            return 0
        return self.inner_steps * (1 if any(learns[1:]) else self.last_factor)

    def describe(self, model: DiffusionModel) -> dict[str, Any]:
        """The settings in plain values, the optimiser by its class and learning rate."""
        optimizer = self.optimizer([torch.zeros(1, requires_grad=True)])
        plain = super().describe(model)
        del plain["optimizer"]
        if self.tokens is None:
            del plain["tokens"]
        plain["optimizer_class"] = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
        plain["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        return plain

    def learnable(self, model: DiffusionModel, text: Conditioning) -> Tensor:
        """The first ``tokens`` of each text encoder, with what else the model learns of a text."""
        return model.learnable(text, self.tokens)

    def null_text(self, model: DiffusionModel, cond: Conditioning, size: tuple[int, int]) -> Conditioning:
        """Between the empty prompt (start 0, the paper) and the source prompt (1)."""
        return Conditioning.lerp(super().null_text(model, cond, size), cond, self.start)

    def null_texts(
        self, model: DiffusionModel, inversion: Inversion, cond: Conditioning
    ) -> list[Conditioning]:
        """The learned null texts."""
        empty, start = super().null_text(model, cond, inversion.size), inversion.settings.get("start", 0)
        return inversion.null_texts(model, Conditioning.lerp(empty, cond, float(start)))

    def step(self, model: DiffusionModel, state: State, i: int, notify: OnInnerStep = None) -> StepRecord:
        """One timestep of Algorithm 1, which starts where the one before ended."""
        if i and self.start < 1 and state.warm:
            state.null[i].data.copy_(state.null[i - 1].detach())  # null_{t-1} <- null_t
        return learn(model, state, i, self, notify)


@torch.enable_grad()
def learn(
    model: DiffusionModel, state: State, i: int, method: NullText, notify: OnInnerStep = None
) -> StepRecord:
    """Learns ``state.null[i]`` and takes the guided step; again at a smaller loss scale where fp16 overflowed."""
    attempt = partial(learn_null_embedding, model, state, i, method, notify)
    record = until_finite(attempt, state.memory, model.dtype)
    state.z = record.z
    state.null[i].data.copy_(record.null)
    state.memory.update(record.carried)
    return record


def learn_null_embedding(
    model: DiffusionModel, state: State, i: int, method: NullText, notify: OnInnerStep, scale: float
) -> StepRecord:
    """One timestep of Algorithm 1, lines 7 to 11, for B pictures; their losses are summed, so rows stay apart."""
    schedule, there, w = state.schedule, state.schedule.there(i), method.guidance_scale
    inner = InnerLoop(method, state, i, scale)  # N, null_t and z*_{t-1}
    denoise = partial(model.predict, state.z, schedule, i)  # a text gives its prediction at z_t
    text = partial(model.with_learned, state.null_text)  # a null embedding gives its text
    null, cond = first_predictions(denoise, text(inner.null), state.cond, w, inner.steps > 0)
    inner.see(null, step(guide(null, cond, w), there))  # || z*_{t-1} - z_{t-1}(z_t, null_t, C) ||^2
    for j in range(inner.steps):
        if notify is not None:
            notify(j, inner.loss.detach())
        if not inner.wants_step():
            break
        goes_on = inner.descend() and j + 1 < inner.steps  # null_t <- null_t - eta grad loss
        if not goes_on and method.fresh_guided_step and not method.keep_best:
            break
        with torch.set_grad_enabled(goes_on):
            null = denoise(text(inner.null))
            inner.see(null, step(guide(null, cond, w), there))
        if not goes_on:
            break
    if method.fresh_guided_step:
        with torch.no_grad():
            prediction = guided_denoiser(model, schedule, state.cond, [text(inner.learned)], w)(state.z, i)
    else:
        prediction = guide(replace(null, output=inner.output), cond, w)
    return inner.record(i, step(prediction, there), prediction.z_0)


def first_predictions(
    denoise: Callable[..., Prediction], null: Conditioning, cond: Conditioning, w: float, learns: bool
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


def _reach(schedule: Schedule, i: int) -> float:
    """How far step i moves the latents for a unit of what the network predicts."""
    unit = Prediction(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), schedule.here(i), schedule.kind)
    return float(step(unit, schedule.there(i)).abs())
