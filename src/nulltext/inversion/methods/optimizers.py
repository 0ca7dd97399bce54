"""The inner optimisers that are not in ``torch.optim``; each row of a parameter (B, ...) is a problem of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

TINY = 1e-30


class NormalisedGradient(Optimizer):
    """Steps of a fixed length along the gradient: ``p <- p - lr g / rms(g)``.

    The first step of Adam moves every entry by the learning rate, however small its gradient; where that is nearly
    zero, rounding chooses the direction. This one moves each entry in proportion to its gradient. It does not depend
    on the scale of the loss, and pictures in a batch come out as they do alone.

    Args:
        params: Parameters (B, ...), or groups of them.
        lr: Root mean square of a step's entries.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.002) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for x in (x for x in group["params"] if x.grad is not None):
                x.add_(_unit(x.grad), alpha=-group["lr"])


class ConjugateAdam(Optimizer):
    """Adam's direction, made conjugate to the step before, with a learning rate that measures itself.

    For a least-squares loss, the mean square of a residual r(x). One step:

        v <- beta v + (1 - beta) (g / |g|)^2     Adam's second moment, of the gradient's direction
        d  = -g / (sqrt(v) + floor rms(v))       Adam's direction
        p  = d - <d, y> / <q, q> p'              conjugate to the last direction p'; g changes by y along it, r by q
        x <- x + lr p / rms(p)                   lr: the length that was best for the last step

    The residual after a step shows what the step changed, q, and so which length would have been best:
    -<r, q> / <q, q>. The next step first moves x there, with the residual interpolated to that length; neither needs
    another evaluation. Between timesteps only v and the length carry over.

    Args:
        params: Parameters (B, ...), or groups of them.
        first_lr: Root mean square of the first step's entries; from then on each row measures its own. The names of
            these arguments are not Adam's, so that another optimiser on the command line inherits none of them.
        beta: Memory of the second moment.
        floor: Added to its root, relative to its root mean square.
        trust: A measured length is at most this many times the one before, and at least that fraction of it.
    """

    carried: ClassVar[tuple[str, ...]] = ("v", "length")
    """What of its state the next timestep's optimiser starts with."""

    def __init__(
        self,
        params: Iterable[Any],
        first_lr: float = 0.1,
        beta: float = 0.9,
        floor: float = 1e-2,
        trust: float = 4.0,
    ) -> None:
        super().__init__(params, {"lr": first_lr, "beta": beta, "floor": floor, "trust": trust})

    @torch.no_grad()
    def observe(self, x: Tensor, residual: Tensor) -> Tensor:
        """Measures how long the last step should have been, from the residual (B, ...) at x.

        Returns:
            The residual at that length (B, ...), by which the next gradient is to be weighted.
        """
        state, trust = self.state[x], self.param_groups[0]["trust"]
        if "direction" in state:
            before, taken = state["residual"], state["length"]
            change = (residual - before) / _rows(taken, residual)
            best = -_dot(before, change) / _dot(change, change).clamp(min=TINY)
            state["taken"], state["length"] = taken, best.clamp(taken / trust, trust * taken)
            state["curvature"] = 2 * _dot(change, change) / change[0].numel()
            residual = before + _rows(state["length"], change) * change
        state["residual"] = residual
        return residual

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient; ``observe`` comes before it."""
        for group in self.param_groups:
            for x in (x for x in group["params"] if x.grad is not None):
                self._step(x, group)

    def _step(self, x: Tensor, group: dict[str, Any]) -> None:
        state, g = self.state[x], x.grad
        state.setdefault("length", g.new_full((len(g),), group["lr"]))
        square = _unit(g).square() / g[0].numel()
        state["v"] = torch.lerp(square, state["v"], group["beta"]) if "v" in state else square
        rms = state["v"].mean(dim=tuple(range(1, g.ndim)), keepdim=True).sqrt()
        direction = -g / (state["v"].sqrt() + group["floor"] * rms).clamp(min=TINY)
        if "direction" in state:
            last = state["direction"]
            x.add_(_rows(state["length"] - state["taken"], x) * last)
            change = (g - state["gradient"]) / _rows(state["length"], g)
            share = -_dot(direction, change) / state["curvature"].clamp(min=TINY)
            most = (
                group["trust"] * _dot(direction, direction).sqrt() / _dot(last, last).sqrt().clamp(min=TINY)
            )
            direction = direction + _rows(share.clamp(-most, most), direction) * last
        state["direction"], state["gradient"] = _unit(direction), g.clone()
        x.add_(_rows(state["length"], x) * state["direction"])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row (B,)."""
    return (a * b).flatten(1).sum(dim=1)


def _rows(numbers: Tensor, like: Tensor) -> Tensor:
    """One number for each row (B,), shaped to multiply rows of ``like``."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


def _unit(x: Tensor) -> Tensor:
    """Each row scaled to a root mean square of 1."""
    rms = x.square().mean(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()
    return x / rms.clamp(min=torch.finfo(rms.dtype).tiny)
