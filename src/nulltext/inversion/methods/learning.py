"""The bookkeeping around Algorithm 1's inner loop: who still learns, and what half precision needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nulltext.diffusion import Prediction
from nulltext.errors import UserError
from nulltext.inversion.base import State, StepRecord

MAX_UNSCALABLE = 3  # attempts at a step in a row with a non-finite loss before the run ends


class NonFiniteLoss(UserError):
    """The loss of several attempts in a row was not a number."""


@dataclass(frozen=True)
class Learning:
    """How the null embedding of one step is learned."""

    inner_steps: int  # N
    optimizer: Callable[[Iterable[Any]], Optimizer]
    learning_rate_decay: float = 0.0  # step i learns at lr * (1 - decay * i)
    tolerance: float = 0.0  # a loss below it needs no (further) inner step
    early_stop_loss: float = 0.0  # step i ends after an inner step whose loss was below it + growth * i
    early_stop_growth: float = 0.0
    keep_best: bool = True  # the embedding with the least loss counts, not the last
    fresh_guided_step: bool = False  # evaluate the network again for the step after the inner loop

    @property
    def skips_last(self) -> bool:
        """Whether the prediction after the last inner step is not needed."""
        return self.fresh_guided_step and not self.keep_best


class InnerLoop:
    """The inner steps of one timestep, for B pictures that stop one by one.

    Without a tolerance or an early stop there is no GPU synchronisation in the loop. An optimiser with a method
    ``observe`` is told the residual of each embedding; what it names in ``carried`` goes on to the next timestep.
    """

    def __init__(
        self, learning: Learning, i: int, null: Tensor, memory: dict[str, Tensor], scale: float
    ) -> None:
        self.learning, self.scale = learning, scale
        self.null = self.best = null.detach().clone().requires_grad_(True)
        self.optimizer = learning.optimizer([self.null])
        self.carried = getattr(self.optimizer, "carried", ())
        for group in self.optimizer.param_groups:
            group["lr"] *= 1 - learning.learning_rate_decay * i
        for name in (name for name in self.carried if name in memory):
            self.optimizer.state[self.null][name] = memory[name].to(null.device)
        self.early_stop = (
            learning.early_stop_loss and learning.early_stop_loss + learning.early_stop_growth * i
        )
        self.active = torch.ones(len(null), dtype=torch.bool, device=null.device)
        self.taken = torch.zeros(len(null), dtype=torch.int64, device=null.device)
        self.least = torch.full((len(null),), torch.inf, device=null.device)
        self.loss = self.objective = self.least
        self.output = torch.empty(0)
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []

    def see(self, prediction: Prediction, residual: Tensor) -> None:
        """Remembers the embedding where it is better than those before; lets the optimiser measure its last step.

        Args:
            prediction: The prediction under the embedding as it is now.
            residual: z_{t-1} - z*_{t-1} under it (B, C, h, w).
        """
        self.loss, output = residual.square().mean(dim=(1, 2, 3)), prediction.output.detach()
        better = self.loss.detach() < self.least
        if self.learning.keep_best and len(self.output):
            self.best = torch.where(better[:, None, None], self.null.detach(), self.best)
            self.output = torch.where(better[:, None, None, None], output, self.output)
        else:
            self.best, self.output = self.null.detach().clone(), output
        self.least = torch.where(better, self.loss.detach(), self.least)
        self.objective = self.loss
        if self.learning.inner_steps and hasattr(self.optimizer, "observe"):
            expected = self.optimizer.observe(self.null, residual.detach())
            self.objective = 2 * (residual * expected).mean(
                dim=(1, 2, 3)
            )  # its gradient is that of the loss there

    def wants_step(self) -> bool:
        """Whether any picture still takes an inner step; the losses are recorded."""
        self.losses.append(self.loss.detach())
        if self.learning.tolerance:
            self.active &= ~(self.losses[-1] < self.learning.tolerance)
            return bool(self.active.any())
        return True

    def descend(self) -> bool:
        """One optimiser step of the active pictures, null <- null - eta grad loss; False where none should follow."""
        (gradient,) = torch.autograd.grad(self.objective.sum() * self.scale, self.null)
        self.norms.append((gradient / self.scale).flatten(1).norm(dim=1))
        if self.scale > 1 and not is_finite(gradient):
            return False
        before = self.null.detach().clone()
        self.null.grad = gradient / self.scale
        self.optimizer.step()
        self.null.grad = None
        with torch.no_grad():
            self.null.copy_(torch.where(self.active[:, None, None], self.null, before))
        self.taken += self.active
        self.active &= ~(self.losses[-1] < self.early_stop)
        return not (self.early_stop and not self.active.any())

    @property
    def learned(self) -> Tensor:
        """The embedding that counts (B, L, d)."""
        return self.best if self.learning.keep_best else self.null.detach()

    def record(self, i: int, z: Tensor, z_clean: Tensor) -> StepRecord:
        """What happened."""
        nothing, state = z.new_zeros(0, len(z)), self.optimizer.state[self.null]
        lr = torch.full((len(z),), float(self.optimizer.param_groups[0]["lr"]))
        return StepRecord(
            step=i,
            z=z,
            z_clean=z_clean,
            losses=torch.stack(self.losses) if self.losses else nothing,
            grad_norms=torch.stack(self.norms) if self.norms else nothing,
            inner_steps=self.taken,
            null=self.learned.detach(),
            learning_rate=state.get("length", lr),
            carried={name: state[name] for name in self.carried if name in state},
        )


@dataclass
class LossScale:
    """Keeps small fp16 gradients above the smallest number of that type; 1 for other types.

    The loss is a mean over the latents and ends near 1e-5: in fp16 its gradients would all round to zero. A scale
    whose gradients overflow is halved, and the step is done again.
    """

    memory: dict[str, Tensor]

    @classmethod
    def of(cls, state: State, dtype: torch.dtype) -> LossScale:
        """The loss scale of an inversion; it starts at 2^20 for fp16, at 1 for the types with fp32's range."""
        start = torch.tensor(2.0**20 if dtype == torch.float16 else 1.0)
        state.memory.setdefault("loss_scale", start)
        return cls(state.memory)

    @property
    def value(self) -> float:
        """What losses are multiplied with."""
        return float(self.memory["loss_scale"])

    def until_finite(self, attempt: Callable[[float], StepRecord]) -> StepRecord:
        """Attempts a step at this scale until its numbers are finite.

        Raises:
            NonFiniteLoss: Three times in a row the loss was not finite, or its gradient was not and the scale is 1.
        """
        skipped, in_a_row = 0, 0
        while True:
            record = attempt(self.value)
            if is_finite(record.losses, record.grad_norms, record.z):
                return dataclasses.replace(record, skipped=skipped)
            skipped, in_a_row = skipped + len(record.grad_norms), in_a_row + 1
            if self.value > 1 and is_finite(record.losses[:1]):
                self.memory["loss_scale"], in_a_row = self.memory["loss_scale"] / 2, 0
            elif in_a_row >= MAX_UNSCALABLE:
                raise NonFiniteLoss(
                    f"the loss of step {record.step} was not finite {in_a_row} times in a row; "
                    "try --trainer.precision 32-true or a smaller --model.optimizer.lr"
                )


def is_finite(*numbers: Tensor) -> bool:
    """Whether all numbers are."""
    return bool(torch.stack([x.isfinite().all() for x in numbers]).all())
