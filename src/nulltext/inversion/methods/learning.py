"""The bookkeeping around Algorithm 1's inner loop: who still learns, and what half precision needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltext.diffusion import Prediction
from nulltext.errors import UserError
from nulltext.inversion.base import State, StepRecord

if TYPE_CHECKING:
    from nulltext.inversion.methods.null_text import NullText

MAX_UNSCALABLE = 3  # attempts at a step in a row with a non-finite loss before the run ends


class NonFiniteLoss(UserError):
    """The loss of several attempts in a row was not a number."""


class InnerLoop:
    """The inner steps of one timestep, for B pictures that stop one by one.

    Without a tolerance or an early stop there is no GPU synchronisation in the loop. An optimiser with a method
    ``observe`` is told the residual of each embedding; what it names in ``carried`` goes on to the next timestep.
    """

    def __init__(self, method: NullText, state: State, i: int, scale: float) -> None:
        self.method, self.scale, self.target = method, scale, state.pivot[i + 1]
        self.steps = method.inner_steps_at(state.schedule, i)
        self.null = self.best = state.null[i].detach().clone().requires_grad_(True)
        self.optimizer = method.optimizer([self.null])
        self.carried = getattr(self.optimizer, "carried", ())
        for group in self.optimizer.param_groups:
            group["lr"] *= 1 - method.learning_rate_decay * i
        for name in (name for name in self.carried if name in state.memory):
            self.optimizer.state[self.null][name] = state.memory[name].to(self.null.device)
        self.early_stop = method.early_stop_loss and method.early_stop_loss + method.early_stop_growth * i
        batch, device = len(self.null), self.null.device
        self.active = torch.ones(batch, dtype=torch.bool, device=device)
        self.taken = torch.zeros(batch, dtype=torch.int64, device=device)
        self.least = self.loss = self.objective = torch.full((batch,), torch.inf, device=device)
        self.output = torch.empty(0)
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []

    def see(self, prediction: Prediction, z_next: Tensor) -> None:
        """Remembers the embedding where its z_{t-1} is better than before; lets the optimiser measure its last step."""
        residual = z_next - self.target
        self.loss = self.objective = residual.square().mean(dim=(1, 2, 3))
        loss, output, null = self.loss.detach(), prediction.output.detach(), self.null.detach()
        better = loss < self.least
        if self.method.keep_best and len(self.output):
            self.best = torch.where(better[:, None, None], null, self.best)
            self.output = torch.where(better[:, None, None, None], output, self.output)
        else:
            self.best, self.output = null.clone(), output
        self.least = torch.where(better, loss, self.least)
        if self.steps and hasattr(self.optimizer, "observe"):
            expected = self.optimizer.observe(self.null, residual.detach())
            # the gradient of this is that of the loss there
            self.objective = 2 * (residual * expected).mean(dim=(1, 2, 3))

    def wants_step(self) -> bool:
        """Whether any picture still takes an inner step; the losses are recorded."""
        self.losses.append(self.loss.detach())
        if self.method.tolerance:
            self.active &= ~(self.losses[-1] < self.method.tolerance)
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
        return self.best if self.method.keep_best else self.null.detach()

    def record(self, i: int, z: Tensor, z_clean: Tensor) -> StepRecord:
        """What happened."""
        nothing, state = z.new_zeros(0, len(z)), self.optimizer.state[self.null]
        losses, norms = (torch.stack(x) if x else nothing for x in (self.losses, self.norms))
        lr = state.get("length", torch.full((len(z),), float(self.optimizer.param_groups[0]["lr"])))
        carried = {name: state[name] for name in self.carried if name in state}
        return StepRecord(i, z, z_clean, losses, norms, self.taken, self.learned.detach(), lr, carried)


def until_finite(
    attempt: Callable[[float], StepRecord], memory: dict[str, Tensor], dtype: torch.dtype
) -> StepRecord:
    """Attempts a step at the loss scale in ``memory`` until its numbers are finite.

    The scale keeps small fp16 gradients above the smallest number of that type; it is 1 for other types. The loss is a
    mean over the latents and ends near 1e-5: in fp16 its gradients would all round to zero. A scale whose gradients
    overflow is halved, and the step is done again.

    Raises:
        NonFiniteLoss: Three times in a row the loss was not finite, or its gradient was not and the scale is 1.
    """
    memory.setdefault("loss_scale", torch.tensor(2.0**20 if dtype == torch.float16 else 1.0))
    in_a_row = 0
    while True:
        scale = float(memory["loss_scale"])
        record = attempt(scale)
        if is_finite(record.losses, record.grad_norms, record.z):
            return record
        in_a_row += 1
        if scale > 1 and is_finite(record.losses[:1]):
            memory["loss_scale"], in_a_row = memory["loss_scale"] / 2, 0
        elif in_a_row >= MAX_UNSCALABLE:
            raise NonFiniteLoss(
                f"the loss of step {record.step} was not finite {in_a_row} times in a row; "
                "try --trainer.precision 32-true or a smaller --model.optimizer.lr"
            )


def is_finite(*numbers: Tensor) -> bool:
    """Whether all numbers are."""
    return bool(torch.stack([x.isfinite().all() for x in numbers]).all())
