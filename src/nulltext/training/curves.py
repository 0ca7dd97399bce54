"""Curves and pictures of a run in TensorBoard."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from nulltext.inversion import StepRecord
from nulltext.pixels import from_image, to_unit
from nulltext.plots.heat import heat_map, side_by_side
from nulltext.runs.folder import run_folder
from nulltext.runs.results import METRICS_CSV, method_of, read_rows
from nulltext.training.callbacks import Artifacts
from nulltext.training.module import NullTextInversion
from nulltext.training.options import CurveOptions
from nulltext.training.progress import inner_budget

ABOUT = {
    "loss": "What a timestep leaves: mean square distance of the guided latents to the pivot. Use the log axis.",
    "loss_inner": "The same distance before each inner step; N inner steps to a timestep. Use the log axis.",
    "distance_to_empty_prompt": "Root mean square distance of the null embedding to the empty prompt's.",
    "distance_to_source_prompt": "Root mean square distance of the null embedding to the source prompt's.",
    "grad_norm": "Norm of the gradient of the last inner step of a timestep. Use the log axis.",
    "inner_steps": "Inner steps that a timestep took.",
    "learning_rate": "Root mean square of an inner step's entries.",
    "heading_for": "The clean picture that the guided trajectory points to, so far.",
    "original_vae_ddim_nulltext": "The picture; by the VAE alone, plain inversion, this method; below: differences.",
    "loss_heat_map": "The loss of every inner step (rows) of every timestep (columns), logarithmic.",
}
"""What a curve or picture is, as TensorBoard shows it behind the i of its heading."""


class Curves(Callback):
    """Curves and pictures in TensorBoard: inner losses at i N + j, values of a timestep at i.

    Args:
        images_every: As in ``CurveOptions``.
    """

    def __init__(self, images_every: int = CurveOptions.images_every) -> None:
        self.images_every = images_every
        self._writer: Any = None
        self._there: set[tuple[str, int]] = set()  # what is written already, as (tag, step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens a file of events, and finds out what those of a resumed run hold."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run_folder(trainer) / (f"rank{trainer.global_rank}" if trainer.global_rank else "")
        self._there = written_events(folder) if trainer.ckpt_path else set()
        self._writer = SummaryWriter(str(folder))
        settings = "\n".join(f"    {key}: {value}" for key, value in sorted(pl_module.hparams.items()))
        self._text("command", f"    {shlex.join(['python', *sys.argv])}")
        self._text("settings", settings)

    def on_train_batch_end(self, trainer: Trainer, pl_module: NullTextInversion, *_: Any) -> None:  # type: ignore[override]
        """Writes one timestep, and after a group's last one the comparison."""
        module, record = pl_module, pl_module.record
        if record is None:
            return
        i = record.step
        images = self.images_every > 0 and (i % self.images_every == 0 or i + 1 == module.method.steps)
        clean = to_unit(module.model.decode(record.z_clean).float().cpu()) if images else ()
        left, (empty, source) = module.loss_left(), module.embedding_distances()
        for b, name in enumerate(picture.name for picture in module.pictures):
            self._scalar(f"loss/{name}", left[b], i)
            self._scalar(f"distance_to_empty_prompt/{name}", empty[b], i)
            self._scalar(f"distance_to_source_prompt/{name}", source[b], i)
            self._inner_steps(name, record, b, inner_budget(module.method))
            if images:
                self._image(f"heading_for/{name}", clean[b], i)
        for artifacts in (c for c in trainer.callbacks if isinstance(c, Artifacts)):  # type: ignore[attr-defined]
            for b, result in enumerate(artifacts.finished):
                name, picture = result.picture.name, result.picture.pixels
                pictures = (picture, result.vae, result.ddim, result.reconstruction)
                self._image(f"original_vae_ddim_nulltext/{name}", side_by_side(pictures), i)
                self._text(f"result/{name}", f"{result.picture.prompt}: {result.inversion.psnr:.2f} dB")
                heat = heat_map([losses[:, b] for losses in artifacts.history.losses])
                self._image(f"loss_heat_map/{name}", to_unit(from_image(heat)), i)
        self._writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The settings with the fidelity they reached."""
        from torch.utils.tensorboard.summary import hparams

        rows = read_rows(run_folder(trainer) / METRICS_CSV)
        if not rows or not trainer.is_global_zero:
            return
        keys = (f"psnr_{method_of(rows[0])}", "psnr_vae", "psnr_ddim", "seconds_total")
        means = {f"hparam/{key}": sum(float(row[key]) for row in rows) / len(rows) for key in keys}
        plain = {key: x for key, x in pl_module.hparams.items() if isinstance(x, int | float | str)}
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

    def _inner_steps(self, name: str, record: StepRecord, b: int, most: int) -> None:
        i, taken = record.step, int(record.inner_steps[b])
        for j, loss in enumerate(record.losses[: taken + 1, b].tolist()):  # the last may have needed no step
            self._scalar(f"loss_inner/{name}", loss, i * most + j)
        if taken:
            self._scalar(f"grad_norm/{name}", record.grad_norms[taken - 1, b], i)
        self._scalar(f"inner_steps/{name}", taken, i)
        if record.learning_rate is not None:
            self._scalar(f"learning_rate/{name}", record.learning_rate[b], i)

    def _scalar(self, tag: str, value: float | Tensor, step: int) -> None:
        self._add("scalar", tag, step, float(value))

    def _image(self, tag: str, pixels: Tensor, step: int) -> None:
        self._add("image", tag, step, pixels, dataformats="CHW")

    def _add(self, kind: str, tag: str, step: int, *value: Any, **form: str) -> None:
        """Writes a summary of one value, with its description, unless it is there."""
        from torch.utils.tensorboard import summary as kinds

        if (tag, step) not in self._there:
            summary = getattr(kinds, kind)(tag, *value, **form)
            summary.value[0].metadata.summary_description = ABOUT[tag.split("/")[0]]
            self._writer.file_writer.add_summary(summary, step)

    def _text(self, tag: str, words: str) -> None:
        """Puts words into the text tab; indented by four they stay as they are."""
        if (f"{tag}/text_summary", 0) not in self._there:
            self._writer.add_text(tag, words, 0)


def written_events(folder: Path) -> set[tuple[str, int]]:
    """What a run's event files hold already, as (tag, step).

    A timestep whose events were written but whose checkpoint was not is done again, with the same result; its events
    are not written twice. (``purge_step`` cannot do this: it has one axis for all tags, and ours have two.)
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: set[tuple[str, int]] = set()
    for path in folder.glob("events.out.tfevents.*"):
        # a killed run's last record may be half written: the loader has many names for it
        with suppress(Exception):
            for event in EventFileLoader(str(path)).Load():
                found.update((value.tag, event.step) for value in event.summary.value)
    return found
