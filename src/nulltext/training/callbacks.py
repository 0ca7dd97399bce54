"""What a run writes: the results of its pictures, and its checkpoint.

A group's results are written in ``on_train_batch_end`` of its last timestep and before the checkpoint of that
timestep: Lightning ends an epoch whose last batch is in the checkpoint without calling ``on_train_epoch_end``.
"""

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from tqdm import tqdm

from nulltext.files import write_atomically
from nulltext.runs.checkpoints import rank_checkpoint
from nulltext.runs.folder import run_folder
from nulltext.runs.history import History, seconds_since
from nulltext.runs.memory import peak_memory
from nulltext.runs.metrics_csv import METRICS_CSV, add_row, read_rows
from nulltext.runs.results import Result, Share, closing, measure, summary, write_result
from nulltext.training.module import NullTextInversion


class Artifacts(Callback):
    """Writes a picture's folder and its row of metrics.csv as soon as its last timestep is done."""

    def __init__(self) -> None:
        self.history = History()
        self.finished: list[tuple[Result, dict[str, Any], History, int]] = []
        """Of the group that just ended: result, metrics, history, and its place in the batch."""
        self.done = 0
        self._started = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the clock, and a new history with a new group."""
        self._started, self.finished = time.perf_counter(), []
        if batch.step == 0:
            self.history = History()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the timestep's losses; after the last one, compares and writes."""
        assert isinstance(pl_module, NullTextInversion)
        if pl_module.gave_up:
            return
        assert pl_module.record is not None
        record = pl_module.record
        self.history.add(record, pl_module.loss_left())
        last = record.step + 1 == pl_module.method.steps
        results = pl_module.results() if last else []
        self.history.seconds += seconds_since(self._started)
        for b, result in enumerate(results):
            self._finish(trainer, pl_module, result, b)

    def _finish(self, trainer: Trainer, module: NullTextInversion, result: Result, b: int) -> None:
        share = Share(module.cost, len(module.pictures), peak_memory(module.device), str(module.device))
        numbers = measure(result, share, self.history, b)
        write_result(run_folder(trainer) / result.picture.name, result, numbers, self.history, b)
        add_row(run_folder(trainer) / METRICS_CSV, numbers, trainer.datamodule.order)  # type: ignore[attr-defined]
        self.finished.append((result, numbers, self.history, b))
        self.done += 1
        tqdm.write(summary(numbers, result.title), file=sys.stdout)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints what came out and what to type next."""
        if trainer.world_size == 1 and read_rows(run_folder(trainer) / METRICS_CSV):
            print(
                closing(run_folder(trainer)), flush=True
            )  # of several processes the first says it at the end

    def state_dict(self) -> dict[str, Any]:
        """The history of an unfinished group, so that the sheet of a resumed run shows all of it."""
        return vars(self.history)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the history."""
        self.history = History(**state_dict)


class Checkpointer(Checkpoint):
    """Writes checkpoints/last.ckpt: the state after the last timestep that is wholly done, files included.

    There is no saving on exception: every finished timestep is saved already, and a timestep whose files could not be
    written must not count as finished.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves; Lightning calls checkpoint callbacks after all others."""
        if pl_module.gave_up:
            return
        path = run_folder(trainer) / rank_checkpoint(trainer.global_rank)
        write_atomically(path, lambda temporary: trainer.save_checkpoint(temporary))
