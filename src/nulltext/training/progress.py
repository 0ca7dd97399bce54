"""The progress bar of an inversion."""

import math
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm

from nulltext.inversion import InversionMethod
from nulltext.training.module import NullTextInversion

BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # the loss is to be seen on 80 columns
NAME_IN_BAR = 16  # characters
SECONDS_BETWEEN_INNER = 0.25  # at least, between two inner steps that the bar shows


class Progress(ProgressBar):
    """One bar: which picture, which timestep, its inner steps as they are taken, its loss, the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._wanted = True
        self._timestep = ""
        self._budget = 0
        self._shown = -math.inf

    def disable(self) -> None:
        """Lightning switches the bar off on all ranks but the first."""
        self._wanted = False

    def on_train_start(self, trainer: Trainer, pl_module: NullTextInversion) -> None:  # type: ignore[override]
        """Opens the bar at the cursor of a resumed run; on a terminal only."""
        steps, self._budget = pl_module.method.steps, inner_budget(pl_module.method)
        done = trainer.current_epoch * steps + int(pl_module.cursor) % steps
        total, disable = (trainer.max_epochs or 1) * steps, None if self._wanted else True
        self._bar = tqdm(total=total, initial=done, disable=disable, dynamic_ncols=True, bar_format=BAR)
        pl_module.on_inner_step = None if self._bar.disable else self._show_inner

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Shows what begins; before a group's first timestep is its pivot, which has no loss to show."""
        self._timestep = f"timestep {batch.step + 1}/{pl_module.method.steps}"
        name, others = batch.pictures[0].name, len(batch.pictures) - 1
        name = name if len(name) <= NAME_IN_BAR else f"{name[: NAME_IN_BAR - 1]}…"
        name = f"{name} and {others} more" if others else name
        group = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._bar.set_description(f"{name} {group}", refresh=False)
        if batch.step == 0:
            self._bar.set_postfix_str(f"{self._timestep}, pivot")

    def _show_inner(self, j: int, losses: Tensor) -> None:
        """The inner steps taken so far and their loss; seldom, since reading the loss waits for the device."""
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_INNER:
            self._say(j, losses)
            self._bar.refresh()
            self._shown = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One timestep on, or all that a group which is left out would have taken."""
        record = pl_module.record
        if record is None:
            self._bar.update(pl_module.method.steps - batch.step)
        elif not self._bar.disable:
            self._say(int(record.inner_steps.max()), record.losses[-1] if len(record.losses) else None)
            self._bar.update()

    def _say(self, inner: int, losses: Tensor | None) -> None:
        loss = "-" if losses is None else f"{float(losses.mean()):.1e}"
        steps = f"{self._timestep}, inner {inner}/{self._budget}"
        self._bar.set_postfix_str(f"{steps}, loss {loss}", refresh=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar as it is."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def inner_budget(method: InversionMethod) -> int:
    """The most inner steps of a timestep, for methods that learn; at least 1, since it scales an axis."""
    return max(1, getattr(method, "inner_steps", 0), getattr(method, "corrections", 0))
