"""``fit`` as the page runs it: the same options and the same run folder, with a model that is loaded already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nulltext.cli.fit import FitCLI
from nulltext.cli.options import pick
from nulltext.models.base import DiffusionModel
from nulltext.models.loading import LoadingOptions
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.folder import run_folder

QUIET = ("--trainer.enable_progress_bar", "false")
"""The page has its own bar."""


class Parsed(FitCLI):
    """The options of ``fit``, checked; nothing is made of them."""

    def instantiate_classes(self) -> None:
        """Which model they mean, and how it is held."""
        fit = self.config.fit
        self.loading: LoadingOptions = pick(LoadingOptions, fit.model)
        self.precision: str = fit.trainer.precision
        self.device: str = {"gpu": "auto"}.get(fit.trainer.accelerator, fit.trainer.accelerator)
        self.size, self.method_name = fit.data.size, fit.model.method

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing runs."""


@dataclass(frozen=True)
class Fitted:
    """What a run left."""

    run: Path
    picture: Path | None  # its folder; None where the run was stopped before its end


class Watched(FitCLI):
    """``fit`` of one picture with the page's model and its bar.

    Args:
        words: The options.
        model: The loaded model.
        tell: Is told of each finished step: how many, of how many.
        stop: Whether the person wants to stop.
    """

    def __init__(
        self,
        words: Sequence[str],
        model: DiffusionModel,
        tell: Callable[[int, int], object],
        stop: Callable[[], bool],
    ) -> None:
        self.page_model, self.watch = model, Watch(tell, stop)
        super().__init__([*words, *QUIET])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of ``fit``, watched."""
        self.model.model = self.page_model
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, self.watch)  # type: ignore[attr-defined]
        return trainer

    def fitted(self) -> Fitted:
        """What the run left."""
        run = run_folder(self.trainer)
        picture = run / self.datamodule.sources[0].name
        return Fitted(run, picture if (picture / ARTIFACT).is_file() else None)


class Watch(Callback):
    """Tells the page of each step, and ends the run after the step in which the person stopped it."""

    def __init__(self, tell: Callable[[int, int], object], stop: Callable[[], bool]) -> None:
        self.tell, self.stop = tell, stop

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step is done."""
        self.tell(batch.step + 1, pl_module.method.steps)  # type: ignore[union-attr,arg-type]
        trainer.should_stop = trainer.should_stop or self.stop()
