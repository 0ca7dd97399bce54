"""What the stages share: the learning-rate schedule, noise that survives a restart, a moving average."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nulltext.errors import UserError
from nulltext.farmyard.recipe.stages.muon import Muon, split


def warm_flat_cosine(step: int, steps: int, warm_up: int, flat: float, floor: float = 0.02) -> float:
    """Factor of the learning rate: linear warm-up, flat for a part of the training, cosine to a floor.

    Args:
        step: Optimiser steps taken.
        steps: Optimiser steps of the whole training.
        warm_up: Steps of linear warm-up.
        flat: Share of the training after which the cosine begins.
        floor: Factor at the end.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    begin = max(flat * steps, warm_up)
    share = min(max(step - begin, 0) / max(steps - begin, 1), 1.0)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class Learning:
    """How a stage learns.

    Attributes:
        lr: Learning rate at its highest.
        steps: Optimiser steps of the whole training.
        warm_up: Optimiser steps of linear warm-up.
        flat: Share of the training before the learning rate falls.
        weight_decay: Decoupled, as AdamW's.
        optimizer: adamw, or muon, which here comes five times as far in a step.
        initial: Folder of a finished model of the same shape to go on from.
        kept: Parts that stay as they are, so that what was trained on them stays true, such as encoder.
    """

    lr: float = 1e-3
    steps: int = 2000
    warm_up: int = 100
    flat: float = 0.3
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    initial: Path | None = None
    kept: tuple[str, ...] = ()

    def begin(self, network: Any) -> None:
        """Give a model of diffusers or transformers its initial weights, and hold what is kept.

        Raises:
            UserError: There is no finished model in `initial`.
        """
        if self.initial is not None:
            if not (self.initial / "config.json").is_file():
                raise UserError(
                    f"there is no finished model in {self.initial}; leave --model.learning.initial out to start anew"
                )
            network.load_state_dict(type(network).from_pretrained(self.initial).state_dict())
        for part in self.kept:
            network.get_submodule(part).requires_grad_(False)

    def optimiser(self, *modules: nn.Module) -> tuple[list[Optimizer], list[dict[str, object]]]:
        """The optimiser of modules (betas 0.9, 0.99) under `warm_flat_cosine`, in the form that Lightning takes."""
        optimizer: Optimizer
        if self.optimizer == "muon":
            optimizer = Muon(*split(modules), self.lr, weight_decay=self.weight_decay)
        else:
            parameters = [p for module in modules for p in module.parameters()]
            optimizer = AdamW(
                parameters, self.lr, betas=(0.9, 0.99), weight_decay=self.weight_decay, foreach=True
            )
        schedule = LambdaLR(
            optimizer, lambda step: warm_flat_cosine(step, self.steps, self.warm_up, self.flat)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def generator_of_step(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the noise of one step: a resumed training draws what it would have drawn."""
    return torch.Generator(device).manual_seed((seed << 32) + step)


class MovingAverage(nn.Module):
    """Exponential moving average of a module's parameters, in buffers so that checkpoints hold it.

    Args:
        module: Whose parameters are averaged.
        decay: Weight of the past; early on the average is over (1 + n) / (10 + n) instead.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.names = {name: name.replace(".", "/") for name, _ in module.named_parameters()}
        for name, parameter in module.named_parameters():
            self.register_buffer(self.names[name], parameter.detach().clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the parameters' present values."""
        assert isinstance(self.updates, Tensor)
        self.updates += 1
        n = int(self.updates)
        weight = 1 - min(self.decay, (1 + n) / (10 + n))
        averages = [self.get_buffer(self.names[name]) for name, _ in module.named_parameters()]
        torch._foreach_lerp_(averages, [p.detach() for p in module.parameters()], weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters with the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.get_buffer(self.names[name]))


def show_grid(module: L.LightningModule, tag: str, pictures: Tensor, columns: int) -> None:
    """Put pictures, row by row, into TensorBoard.

    Args:
        module: Whose logger and step are used.
        tag: Name of the image.
        pictures: (n, 3, H, W) in [-1, 1], n a multiple of `columns`.
        columns: Pictures in a row.
    """
    writer = getattr(module.logger, "experiment", None)
    if writer is None:
        return
    n, channels, height, width = pictures.shape
    grid = pictures.unflatten(0, (n // columns, columns)).permute(2, 0, 3, 1, 4)  # (3, rows, H, columns, W)
    grid = grid.reshape(channels, n // columns * height, columns * width)
    writer.add_image(
        tag, ((grid.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), module.global_step
    )
