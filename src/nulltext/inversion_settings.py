"""The choices of an inversion, and its inner optimiser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from nulltext.backbone import DTYPES, Backbone
from nulltext.errors import UserError
from nulltext.optimizers import NormalisedGradient

MAX_REFINEMENTS = 100
"""More never helped: a step of the pivot stands after a few, or not at all."""


@dataclass(frozen=True)
class InversionSettings:
    """The choices of an inversion, all of them; the defaults are the best measured.

    ``configs/paper.yaml`` has the values of the paper and its code.
    """

    steps: int = 20  # T, the DDIM steps
    inner_steps: int = 1  # N, at most so many optimiser steps a timestep
    guidance_scale: float = 7.5  # w
    start: float = 1.0  # where null_0 starts: 0 the empty prompt, 1 the source prompt; see warm_start
    fixed_point_iterations: int = 4  # refinements of each step of the pivot, at most; 0: plain DDIM inversion
    pivot_tolerance: float = 1e-5  # one that moves the latents by less (mean square) is the last; 0: all
    learning_rate_decay: float = 0.01  # step i learns at lr * (1 - decay * i)
    tolerance: float = 1e-5  # a loss below it needs no (further) inner step; 0: all (paper)
    early_stop_loss: float = 0.0  # end after the step whose loss was below it + growth * i; 0 never
    early_stop_growth: float = 0.0
    fresh_guided_step: bool = False  # ask the network again for the step after the inner loop (paper's code)
    detail_steps: int | None = None  # of the plain inversion kept for edits; None: what suits the model

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        if self.inner_steps < 0:
            raise UserError(f"inner_steps must be 0 or more, not {self.inner_steps}; the paper takes 10")
        if not 0 <= self.start <= 1:
            raise UserError(
                f"start must lie between 0 (empty prompt) and 1 (source prompt), not {self.start}"
            )
        if not self.tolerance >= 0:
            raise UserError(
                f"tolerance must be 0 or more, not {self.tolerance}; 0 always takes all inner steps"
            )
        if not 0 <= self.fixed_point_iterations <= MAX_REFINEMENTS:
            raise UserError(
                f"fixed_point_iterations must be between 0 and {MAX_REFINEMENTS}, not {self.fixed_point_iterations}; "
                "0 is plain DDIM inversion"
            )
        if not self.pivot_tolerance >= 0:
            raise UserError(
                f"pivot_tolerance must be 0 or more, not {self.pivot_tolerance}; 0 always refines as often as allowed"
            )
        if self.detail_steps is not None and not 0 <= self.detail_steps <= 1000:
            raise UserError(
                f"detail_steps must be between 0 and 1000, not {self.detail_steps}; 0 keeps nothing for edits"
            )
        if not 1 <= self.steps <= 1000:
            raise UserError(f"steps must be between 1 and 1000, not {self.steps}; 50 is the paper's choice")
        if not self.guidance_scale >= 0:
            raise UserError(
                f"guidance_scale must be 0 or more, not {self.guidance_scale}; 7.5 is the paper's choice"
            )

    @property
    def warm_start(self) -> bool:
        """Whether a null embedding starts where the one before ended (paper).

        Not from the source prompt itself: there the null prediction is the conditional one, which saves a forward,
        and what there is to correct is new at each timestep.
        """
        return self.start < 1

    def early_stop(self, step: int) -> float:
        """The loss below which step i ends after the inner step then taken."""
        return self.early_stop_loss + self.early_stop_growth * step


def detail_steps(backbone: Backbone, settings: InversionSettings) -> int:
    """The steps of the plain inversion whose noise is kept (see ``nulltext.starting_noise``)."""
    suits = backbone.edit_defaults.detail_steps
    return suits if settings.detail_steps is None else settings.detail_steps


def default_optimizer(parameters: Iterable[Any]) -> Optimizer:
    """Steps along the gradient, a fifth as long as Adam's first at the paper's learning rate of 0.01."""
    return NormalisedGradient(parameters)


def choices(
    backbone: Backbone, settings: InversionSettings, optimizer: Callable[[Iterable[Any]], Optimizer]
) -> dict[str, Any]:
    """What an inversion says of how it was made: its settings, the optimiser, the learning rate, the precision."""
    inner = optimizer([torch.zeros(1, requires_grad=True)])
    return {
        **dataclasses.asdict(settings),
        "detail_steps": detail_steps(backbone, settings),
        "optimizer_class": f"{type(inner).__module__}.{type(inner).__name__}",
        "learning_rate": float(inner.param_groups[0]["lr"]),
        "precision": next(name for name, dtype in DTYPES.items() if dtype == backbone.dtype),
    }
