"""The inner optimisers that are not in ``torch.optim``."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class NormalisedGradient(Optimizer):
    """Steps of a fixed length along the gradient: ``p <- p - lr g / rms(g)``, for each row of the batch by itself.

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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                rms = gradient.square().mean(dim=tuple(range(1, gradient.ndim)), keepdim=True).sqrt()
                unit = gradient / rms.clamp(min=torch.finfo(rms.dtype).tiny)
                parameter.add_(unit, alpha=-group["lr"])
