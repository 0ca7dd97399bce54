"""Curves and pictures of a run in TensorBoard."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from nulltext.inversion import StepRecord
from nulltext.pixels import from_image, to_unit
from nulltext.plots.heat import heat_map, side_by_side
from nulltext.runs.folder import run_folder
from nulltext.runs.history import History
from nulltext.runs.metrics_csv import METRICS_CSV, read_rows
from nulltext.runs.results import Result, method_of
from nulltext.training.callbacks import Artifacts
from nulltext.training.module import NullTextInversion
from nulltext.training.progress import inner_budget


class Curves(Callback):
    """Curves and pictures in TensorBoard.

    Inner losses are at i N + j, values of a timestep at i.

    Args:
        images_every: Timesteps between pictures of where the trajectory is heading; 0 for none.
    """

    def __init__(self, images_every: int = 5) -> None:
        self.images_every = images_every
        self._writer: Any = None
        self._there: set[tuple[str, int]] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens a file of events, and finds out what those of a resumed run hold."""
        from torch.utils.tensorboard import SummaryWriter

        rank = trainer.global_rank
        folder = run_folder(trainer) / f"rank{rank}" if rank else run_folder(trainer)
        self._there = written_events(folder) if trainer.ckpt_path else set()
        self._writer = SummaryWriter(str(folder))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes one timestep, and after a group's last one the comparison."""
        assert isinstance(pl_module, NullTextInversion)
        if pl_module.gave_up:
            return
        assert pl_module.record is not None
        record = pl_module.record
        images = self._wants_images(record.step, pl_module.method.steps)
        clean = pl_module.model.decode(record.z_clean) if images else None
        left, (empty, source) = pl_module.loss_left(), pl_module.embedding_distances()
        for b, picture in enumerate(pl_module.pictures):
            self._scalar(f"loss/{picture.name}", float(left[b]), record.step)
            self._scalar(f"distance_to_empty_prompt/{picture.name}", float(empty[b]), record.step)
            self._scalar(f"distance_to_source_prompt/{picture.name}", float(source[b]), record.step)
            self._scalars(picture.name, record, b, inner_budget(pl_module.method))
            if clean is not None:
                self._image(f"heading_for/{picture.name}", to_unit(clean[b].float().cpu()), record.step)
        for artifacts in (c for c in trainer.callbacks if isinstance(c, Artifacts)):  # type: ignore[attr-defined]
            for result, _, history, b in artifacts.finished:
                self._comparison(result, history, b, record.step)
        self._writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The settings with the fidelity they reached."""
        from torch.utils.tensorboard.summary import hparams

        assert isinstance(pl_module, NullTextInversion)
        rows = read_rows(run_folder(trainer) / METRICS_CSV)
        if rows and trainer.is_global_zero:
            means = {
                f"hparam/{key}": sum(float(row[key]) for row in rows) / len(rows)
                for key in (f"psnr_{method_of(rows[0])}", "psnr_vae", "psnr_ddim", "seconds_total")
            }
            plain = {
                key: value for key, value in pl_module.hparams.items() if isinstance(value, int | float | str)
            }
            # not add_hparams: it opens a second file, and loses it in silence on a full disk
            for summary in hparams(plain, means):
                self._writer.file_writer.add_summary(summary)
            for tag, mean in means.items():
                self._writer.add_scalar(tag, mean)
            self._writer.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _wants_images(self, step: int, steps: int) -> bool:
        return self.images_every > 0 and (step % self.images_every == 0 or step + 1 == steps)

    def _scalars(self, name: str, record: StepRecord, b: int, inner: int) -> None:
        taken = int(record.inner_steps[b])
        for j, loss in enumerate(record.losses[: taken + 1, b].tolist()):  # the last may have needed no step
            self._scalar(f"loss_inner/{name}", loss, record.step * inner + j)
        if taken:
            self._scalar(f"grad_norm/{name}", float(record.grad_norms[taken - 1, b]), record.step)
        self._scalar(f"inner_steps/{name}", taken, record.step)
        if record.learning_rate is not None:
            self._scalar(f"learning_rate/{name}", float(record.learning_rate[b]), record.step)

    def _comparison(self, result: Result, history: History, b: int, step: int) -> None:
        name = result.picture.name
        pictures = (result.picture.pixels, result.vae, result.ddim, result.reconstruction)
        self._image(f"original_vae_ddim_nulltext/{name}", side_by_side(pictures), step)
        heat = heat_map([losses[:, b] for losses in history.losses])
        self._image(f"loss_heat_map/{name}", to_unit(from_image(heat)), step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        if (tag, step) not in self._there:
            self._writer.add_scalar(tag, value, step)

    def _image(self, tag: str, image: Tensor, step: int) -> None:
        if (tag, step) not in self._there:
            self._writer.add_image(tag, image, step)


def written_events(folder: Path) -> set[tuple[str, int]]:
    """What a run's event files hold already, as (tag, step).

    A timestep whose events were written but whose checkpoint was not is done again, with the same result; its events
    are not written twice. (``purge_step`` cannot do this: it has one axis for all tags, and ours have two.)
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: set[tuple[str, int]] = set()
    for path in folder.glob("events.out.tfevents.*"):
        try:
            for event in EventFileLoader(str(path)).Load():
                found.update((value.tag, event.step) for value in event.summary.value)
        except (
            Exception
        ):  # the last record of a killed run may be half written: the loader has many names for it
            continue
    return found
