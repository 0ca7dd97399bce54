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
from nulltext.runs.results import (
    METRICS_CSV,
    History,
    Result,
    add_row,
    closing,
    measure,
    read_rows,
    seconds_since,
    summary,
    write_result,
)
from nulltext.training.module import NullTextInversion


class Artifacts(Callback):
    """Writes a picture's folder and its row of metrics.csv as soon as its last timestep is done."""

    def __init__(self) -> None:
        self.history = History()
        self.finished: list[Result] = []  # of the group that just ended, in the order of the batch
        self.done = 0
        self._started = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts the clock, and a new history with a new group."""
        self._started, self.finished = time.perf_counter(), []
        if batch.step == 0:
            self.history = History()

    def on_train_batch_end(self, trainer: Trainer, pl_module: NullTextInversion, *_: Any) -> None:  # type: ignore[override]
        """Notes the timestep's losses; after the last one, compares and writes."""
        module, record = pl_module, pl_module.record
        if record is None:
            return
        self.history.add(record, module.loss_left())
        results = module.results() if record.step + 1 == module.method.steps else []
        self.history.seconds += seconds_since(self._started)
        for b, result in enumerate(results):
            numbers = measure(result, module.cost, self.history, b, module.device)
            folder = run_folder(trainer)
            write_result(folder / result.picture.name, result, numbers, self.history, b)
            add_row(folder / METRICS_CSV, numbers, trainer.datamodule.order)  # type: ignore[attr-defined]
            self.finished.append(result)
            self.done += 1
            tqdm.write(summary(numbers, result.title), file=sys.stdout)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints what came out and what to type next; of several processes the first says it at the end."""
        folder = run_folder(trainer)
        if trainer.world_size == 1 and read_rows(folder / METRICS_CSV):
            print(closing(folder), flush=True)

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

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Saves; Lightning calls checkpoint callbacks after all others."""
        if pl_module.record is not None:
            path = run_folder(trainer) / rank_checkpoint(trainer.global_rank)
            write_atomically(path, lambda temporary: trainer.save_checkpoint(temporary))
