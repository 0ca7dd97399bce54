"""Muon: a step along the orthogonalised momentum of each matrix (Jordan et al., 2024), AdamW for everything else.

`torch.optim.Muon` takes matrices only; here convolutions are matrices, too, (out, in * height * width).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ENDS = ("embed", "conv_in", "conv_out", "proj_out", "heads")
"""In the names of layers at a network's ends, which AdamW moves."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic whose iterates drive all singular values to about 1."""


def split(modules: Iterable[nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of modules that Muon moves, the inner matrices, and those that AdamW moves."""
    named = [pair for module in modules for pair in module.named_parameters() if pair[1].requires_grad]
    inner = [p.ndim >= 2 and not any(end in name for end in ENDS) for name, p in named]
    return (
        [p for (_, p), within in zip(named, inner, strict=True) if within],
        [p for (_, p), within in zip(named, inner, strict=True) if not within],
    )


@torch.no_grad()
def orthogonalised(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrices with singular values of about 1, in bfloat16.

    Args:
        matrices: (n, rows, columns).
        iterations: Of Newton and Schulz.
    """
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).contiguous()
    x = x / (x.float().flatten(1).norm(dim=1)[:, None, None].to(x) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(iterations):
        square = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised, for matrices; AdamW for the other parameters.

    Args:
        matrices: Parameters of two or more dimensions.
        others: The other parameters.
        lr: Learning rate of both: an orthogonalised step is scaled to the size of an AdamW step (Liu et al.,
            arXiv 2502.16982, eq. 4).
        momentum: Of the matrices.
        betas: AdamW's.
        weight_decay: Decoupled, of both.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        groups = [{"params": list(matrices), "inner": True}, {"params": list(others), "inner": False}]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            for p in moved:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            (self._step_matrices if group["inner"] else self._step_others)(moved, group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Those of one shape are orthogonalised together."""
        alike: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            alike.setdefault(p.shape, []).append(p)
        for shape, some in alike.items():
            updates = []
            for p in some:
                grad, momentum = self._memory(p, "momentum")
                momentum.lerp_(grad, 1 - group["momentum"])
                updates.append(grad.lerp(momentum, group["momentum"]).flatten(1))
            stacked = torch.stack(updates)  # (n, rows, columns)
            scale = 0.2 * max(stacked.shape[1:]) ** 0.5
            for p, update in zip(some, orthogonalised(stacked), strict=True):
                p.add_(update.unflatten(1, shape[1:]).to(p), alpha=-group["lr"] * scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in parameters:
            grad, mean, square = self._memory(p, "mean", "square")
            count = self.state[p]["count"] = self.state[p].get("count", 0) + 1
            mean.lerp_(grad, 1 - first)
            square.lerp_(grad.square(), 1 - second)
            deviation = (square / (1 - second**count)).sqrt_().add_(1e-8)
            p.addcdiv_(mean / (1 - first**count), deviation, value=-group["lr"])

    def _memory(self, p: Tensor, *names: str) -> list[Tensor]:
        """The gradient of a parameter and what is remembered of it, zeros at first."""
        assert p.grad is not None
        state = self.state[p]
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(p)
        return [p.grad, *(state[name] for name in names)]
