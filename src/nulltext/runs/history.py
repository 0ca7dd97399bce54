"""What the steps of a group of pictures left behind, for its report and its curves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from nulltext.inversion import StepRecord


@dataclass
class Cost:
    """What the inversion of a group has cost so far; network evaluations are counted per latent."""

    seconds_pivot: float = 0.0
    seconds_optimisation: float = 0.0
    unet_forwards: int = 0
    unet_backwards: int = 0
    inner_steps: int = 0
    skipped: int = 0


@dataclass
class History:
    """What the steps of the current group left behind; B pictures."""

    losses: list[Tensor] = field(default_factory=list)  # of each step: (n, B), before each inner step
    after: list[Tensor] = field(default_factory=list)  # of each step: (B,), after the last
    inner_steps: list[Tensor] = field(default_factory=list)  # of each step: (B,)
    seconds: float = 0.0

    def add(self, record: StepRecord, after: Tensor) -> None:
        """One more step. A step that a crash made run twice replaces its first run."""
        for stored, value in (
            (self.losses, record.losses),
            (self.after, after),
            (self.inner_steps, record.inner_steps),
        ):
            del stored[record.step :]
            stored.append(value.detach().cpu())

    def before(self, b: int) -> list[float]:
        """The loss of each step before its first inner step; NaN where there was none."""
        return [float(losses[0, b]) if len(losses) else float("nan") for losses in self.losses]


def seconds_since(started: float) -> float:
    """By ``time.perf_counter``; 0 where the clock was set back meanwhile."""
    return max(0.0, time.perf_counter() - started)
