"""What looks at a run from outside: results in files, curves in TensorBoard, a progress bar, the checkpoint.

A group's results are written in ``on_train_batch_end`` of its last timestep and before the checkpoint of that
timestep: Lightning ends an epoch whose last batch is in the checkpoint without calling ``on_train_epoch_end``.
"""

import csv
import dataclasses
import io
import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from torch import Tensor
from tqdm import tqdm

from nulltext import report
from nulltext.checkpoints import rank_checkpoint
from nulltext.farmyard.scene import ANIMALS
from nulltext.files import alone, write_atomically
from nulltext.inversion import StepRecord
from nulltext.memory import peak_memory
from nulltext.metrics import psnr, ssim
from nulltext.module import NullTextInversion, Result, seconds_since
from nulltext.pictures import to_image
from nulltext.runs import run_folder

METRICS = "metrics.csv"
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # the loss is to be seen on 80 columns
NAME_IN_BAR = 16  # characters
SECONDS_BETWEEN_INNER = 0.25  # at least, between two inner steps that the bar shows
FAR_BELOW_BOUND = 1.0  # dB below the VAE's bound from which on the summary says what to do


@dataclass
class History:
    """What the timesteps of the current group left behind; B pictures."""

    losses: list[Tensor] = field(default_factory=list)  # a timestep: (n, B), before each inner step
    after: list[Tensor] = field(default_factory=list)  # a timestep: (B,), after the last
    inner_steps: list[Tensor] = field(default_factory=list)  # a timestep: (B,)
    seconds: float = 0.0

    def add(self, record: StepRecord, after: Tensor) -> None:
        """One timestep more. A timestep that a crash made run twice replaces its first run."""
        for kept, value in (
            (self.losses, record.losses),
            (self.after, after),
            (self.inner_steps, record.inner_steps),
        ):
            del kept[record.step :]
            kept.append(value.detach().cpu())

    def before(self, b: int) -> list[float]:
        """The loss of each timestep before its first inner step; NaN where there was none."""
        return [float(losses[0, b]) if len(losses) else float("nan") for losses in self.losses]


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
        """Keeps the timestep's losses; after the last one, compares and writes."""
        assert isinstance(pl_module, NullTextInversion)
        if pl_module.gave_up:
            return
        assert pl_module.record is not None
        record = pl_module.record
        self.history.add(record, loss_left(pl_module))
        last = record.step + 1 == pl_module.settings.steps
        results = pl_module.results() if last else []
        self.history.seconds += seconds_since(self._started)
        for b, result in enumerate(results):
            self._finish(trainer, pl_module, result, b)

    def _finish(self, trainer: Trainer, module: NullTextInversion, result: Result, b: int) -> None:
        numbers = measure(result, module, self.history, b)
        inversion = dataclasses.replace(result.inversion, psnr=numbers["psnr_null_text"])
        result = dataclasses.replace(result, inversion=inversion)
        write_result(run_folder(trainer) / result.picture.name, result, numbers, self.history, b)
        add_row(run_folder(trainer) / METRICS, numbers, trainer.datamodule.order)  # type: ignore[attr-defined]
        self.finished.append((result, numbers, self.history, b))
        self.done += 1
        tqdm.write(summary(numbers), file=sys.stdout)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says what came out and what to type next."""
        if trainer.world_size == 1 and read_rows(run_folder(trainer) / METRICS):
            print(
                closing(run_folder(trainer)), flush=True
            )  # of several processes the first says it at the end

    def state_dict(self) -> dict[str, Any]:
        """The history of an unfinished group, so that the sheet of a resumed run shows all of it."""
        return vars(self.history)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the history up again."""
        self.history = History(**state_dict)


def loss_left(module: NullTextInversion) -> Tensor:
    """How far (B,) the walk is from the pivot after the timestep just done: the mean square over the latent."""
    assert module.record is not None
    return (module.record.z - module.pivot[module.record.step + 1]).square().mean(dim=(1, 2, 3))


def measure(result: Result, module: NullTextInversion, history: History, b: int) -> dict[str, Any]:
    """The content of metrics.json: fidelity, cost, and the settings they were had with.

    Fidelity is measured on pixels clamped to the range of a picture; costs are the picture's share of its group.
    """
    unit = {
        name: ((pixels.float().cpu().clamp(-1, 1) + 1) / 2)[None]  # (1, 3, H, W) in [0, 1]
        for name, pixels in (
            ("original", result.picture.pixels),
            ("vae", result.vae),
            ("ddim", result.ddim),
            ("null_text", result.reconstruction),
        )
    }
    numbers: dict[str, Any] = {"name": result.picture.name, "prompt": result.picture.prompt}
    for name in ("vae", "ddim", "null_text"):
        numbers[f"psnr_{name}"] = float(psnr(unit[name], unit["original"]))
    for name in ("vae", "ddim", "null_text"):
        numbers[f"ssim_{name}"] = float(ssim(unit[name], unit["original"]))
    numbers["psnr_null_text_to_vae"] = float(psnr(unit["null_text"], unit["vae"]))
    numbers["latent_mse"] = result.latent_mse
    numbers["inner_steps"] = int(sum(int(steps[b]) for steps in history.inner_steps))
    spent, share = module.spent, len(module.pictures)
    numbers["unet_forwards"] = spent.unet_forwards // share
    numbers["unet_backwards"] = spent.unet_backwards // share
    numbers["seconds_pivot"] = spent.seconds_pivot / share
    numbers["seconds_optimisation"] = spent.seconds_optimisation / share
    numbers["seconds_total"] = history.seconds / share
    numbers["peak_memory_bytes"] = peak_memory(module.device)
    numbers["settings"] = {
        **result.inversion.settings,
        "model": result.inversion.model,
        "fingerprint": result.inversion.fingerprint,
        "device": str(module.device),
        "size": list(result.inversion.size),
        "crop": result.picture.crop,
        "source": str(result.picture.path),
        "source_sha256": result.picture.sha256,
    }
    return numbers


def write_result(folder: Path, result: Result, numbers: dict[str, Any], history: History, b: int) -> None:
    """The picture's folder; ``inversion.safetensors`` last, so that where it is, the rest is too."""
    for name, pixels in (
        ("original", result.picture.pixels),
        ("vae", result.vae),
        ("ddim", result.ddim),
        ("reconstruction", result.reconstruction),
    ):
        write_image(folder / f"{name}.png", to_image(pixels))
    write_image(folder / "report.png", draw_report(result, numbers, history, b))
    text = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / "metrics.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    result.inversion.save(folder / "inversion.safetensors")


def write_image(path: Path, image: Any) -> None:
    """A PNG, whole or not there."""
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))


def draw_report(result: Result, numbers: dict[str, Any], history: History, b: int) -> Any:
    """The contact sheet of one picture."""
    w = result.inversion.guidance_scale

    def label(title: str, name: str) -> str:
        return f"{title}: {numbers[f'psnr_{name}']:.2f} dB, SSIM {numbers[f'ssim_{name}']:.3f}"

    settings = numbers["settings"]
    facts = [
        f"{settings['model']}, {result.inversion.size[1]} x {result.inversion.size[0]} pixels, {settings['precision']}",
        f"T = {settings['steps']}, N = {settings['inner_steps']}, w = {w:g}, start {settings['start']:g}, "
        f"pivot refined {'at most ' if settings['pivot_tolerance'] else ''}{settings['fixed_point_iterations']} times",
        f"{numbers['inner_steps']} inner steps, {numbers['unet_forwards']} forwards, "
        f"{numbers['unet_backwards']} backwards",
        f"pivot {numbers['seconds_pivot']:.1f} s, optimisation {numbers['seconds_optimisation']:.1f} s, "
        f"in all {numbers['seconds_total']:.1f} s",
        f"null-text to the VAE's picture: {numbers['psnr_null_text_to_vae']:.2f} dB",
    ]
    return report.contact_sheet(
        f"{result.picture.name}: {result.picture.prompt or 'empty prompt'}",
        [
            ("original", result.picture.pixels),
            (label("VAE bound", "vae"), result.vae),
            (label(f"DDIM w {w:g}", "ddim"), result.ddim),
            (label(f"null-text w {w:g}", "null_text"), result.reconstruction),
        ],
        history.before(b),
        [float(values[b]) for values in history.after],
        facts,
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv; none where it is not there yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, numbers: dict[str, Any], order: Sequence[str] = ()) -> None:
    """Adds a picture's numbers to metrics.csv, in place of an older row of the same name.

    Rows stand in the order of the pictures, whichever of several processes finished them when.
    """
    row = {key: str(value) for key, value in numbers.items() if key != "settings"}
    place = {name: k for k, name in enumerate(order)}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), extrasaction="ignore")
    writer.writeheader()
    with alone(path.parent.parent):
        rows = [old for old in read_rows(path) if old.get("name") != row["name"]] + [row]
        writer.writerows(sorted(rows, key=lambda entry: place.get(entry["name"], len(place))))
        write_atomically(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def summary(numbers: dict[str, Any]) -> str:
    """One line about one finished picture."""
    line = (
        f"{numbers['name']}: null-text {numbers['psnr_null_text']:.2f} dB "
        f"(VAE bound {numbers['psnr_vae']:.2f}, DDIM {numbers['psnr_ddim']:.2f}) in {numbers['seconds_total']:.1f} s"
    )
    if numbers["psnr_vae"] - numbers["psnr_null_text"] > FAR_BELOW_BOUND:
        line += "; below its bound: try more --model.inner_steps or --model.steps"
    return line


def closing(folder: Path) -> str:
    """The last line of a run: what is there, and what to type next."""
    rows = read_rows(folder / METRICS)
    if not rows:
        return f"nothing was inverted in {folder}"
    shown = os.path.relpath(folder)
    shown = str(folder) if shown.startswith("..") else shown
    ours, bound = (sum(float(row[key]) for row in rows) / len(rows) for key in ("psnr_null_text", "psnr_vae"))
    what = rows[0]["name"] if len(rows) == 1 else f"{len(rows)} pictures"
    place = shown if len(rows) == 1 else f"{shown}/{rows[0]['name']}"
    prompt = first_edit(rows[0]["prompt"])
    advice = "now edit it" if prompt != rows[0]["prompt"] else "now change its words"
    return (
        f"{what} at {ours:.2f} dB, VAE bound {bound:.2f}; see {shown}; {advice}: "
        f"python main.py edit --inversion {shlex.quote(place)} --prompt {shlex.quote(prompt)}"
    )


def first_edit(prompt: str) -> str:
    """The prompt with another animal, where it names one that the farmyard knows; else as it is."""
    animals = "|".join(ANIMALS)
    found = re.search(rf"\b(an?|the) ([\w-]+ )?({animals})\b", prompt, re.IGNORECASE)
    if found is None:
        return prompt
    article, adjective, animal = found.groups("")
    other = "horse" if animal.lower() != "horse" else "cow"
    if not adjective and article.lower() == "an":  # an elk, a horse
        article = article[0]
    return f"{prompt[: found.start()]}{article} {adjective}{other}{prompt[found.end() :]}"


class Curves(Callback):
    """Curves and pictures in TensorBoard.

    Inner losses stand at i N + j, values of a timestep at i.

    Args:
        images_every: Timesteps between pictures of where the walk is heading; 0 for none.
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
        images = self._wants_images(record.step, pl_module.settings.steps)
        clean = pl_module.backbone.decode_latents(record.z_clean) if images else None
        left = loss_left(pl_module)
        for b, picture in enumerate(pl_module.pictures):
            self._scalar(f"loss/{picture.name}", float(left[b]), record.step)
            self._scalars(picture.name, record, b, max(1, pl_module.settings.inner_steps))
            if clean is not None:
                self._image(
                    f"heading_for/{picture.name}", (clean[b].float().cpu().clamp(-1, 1) + 1) / 2, record.step
                )
        for artifacts in (c for c in trainer.callbacks if isinstance(c, Artifacts)):  # type: ignore[attr-defined]
            for result, _, history, b in artifacts.finished:
                self._comparison(result, history, b, record.step)
        self._writer.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The settings with the fidelity they reached."""
        from torch.utils.tensorboard.summary import hparams

        assert isinstance(pl_module, NullTextInversion)
        rows = read_rows(run_folder(trainer) / METRICS)
        if rows and trainer.is_global_zero:
            means = {
                f"hparam/{key}": sum(float(row[key]) for row in rows) / len(rows)
                for key in ("psnr_null_text", "psnr_vae", "psnr_ddim", "seconds_total")
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
        self._scalar(f"learning_rate/{name}", record.learning_rate, record.step)

    def _comparison(self, result: Result, history: History, b: int, step: int) -> None:
        name = result.picture.name
        pictures = (result.picture.pixels, result.vae, result.ddim, result.reconstruction)
        self._image(f"original_vae_ddim_nulltext/{name}", report.side_by_side(pictures), step)
        heat = report.heat_map([losses[:, b] for losses in history.losses])
        self._image(
            f"loss_heat_map/{name}",
            torch.frombuffer(bytearray(heat.tobytes()), dtype=torch.uint8)
            .reshape(heat.height, heat.width, 3)
            .permute(2, 0, 1),
            step,
        )

    def _scalar(self, tag: str, value: float, step: int) -> None:
        if (tag, step) not in self._there:
            self._writer.add_scalar(tag, value, step)

    def _image(self, tag: str, image: Tensor, step: int) -> None:
        if (tag, step) not in self._there:
            self._writer.add_image(tag, image, step)


def written_events(folder: Path) -> set[tuple[str, int]]:
    """What a run's event files hold already, as (tag, step).

    A timestep whose events were written but whose checkpoint was not is done again and comes out the same; its
    events are not written twice. (``purge_step`` cannot do this: it has one axis for all tags, and ours have two.)
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

    def enable(self) -> None:
        """And on again."""
        self._wanted = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where a resumed run stands; on a terminal only."""
        assert isinstance(pl_module, NullTextInversion)
        steps, self._budget = pl_module.settings.steps, pl_module.settings.inner_steps
        done = trainer.current_epoch * steps + int(pl_module.cursor) % steps
        total = (trainer.max_epochs or 1) * steps
        disable = None if self._wanted else True
        self._bar = tqdm(total=total, initial=done, disable=disable, dynamic_ncols=True, bar_format=BAR)
        pl_module.on_inner_step = None if self._bar.disable else self._show_inner

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Says what is begun; before a picture's first timestep stands its pivot, which has no loss to show."""
        assert isinstance(pl_module, NullTextInversion)
        self._timestep = f"timestep {batch.step + 1}/{pl_module.settings.steps}"
        self._bar.set_description(
            f"{_names(batch.pictures)} {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False
        )
        if batch.step == 0:
            self._bar.set_postfix_str(f"{self._timestep}, pivot")

    def _show_inner(self, j: int, losses: Tensor) -> None:
        """The inner steps taken so far and their loss; seldom, for to read the loss is to wait for the device."""
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_INNER:
            self._say(j, losses)
            self._bar.refresh()
            self._shown = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One timestep on, or all that a group which is left out would have taken."""
        assert isinstance(pl_module, NullTextInversion)
        if pl_module.gave_up:
            self._bar.update(pl_module.settings.steps - batch.step)
        elif not self._bar.disable:
            assert pl_module.record is not None
            record = pl_module.record
            self._say(int(record.inner_steps.max()), record.losses[-1] if len(record.losses) else None)
            self._bar.update()

    def _say(self, inner: int, losses: Tensor | None) -> None:
        loss = "-" if losses is None else f"{float(losses.mean()):.1e}"
        self._bar.set_postfix_str(
            f"{self._timestep}, inner {inner}/{self._budget}, loss {loss}", refresh=False
        )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leaves the bar where it stood."""
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _names(pictures: Sequence[Any]) -> str:
    name = pictures[0].name
    name = name if len(name) <= NAME_IN_BAR else f"{name[: NAME_IN_BAR - 1]}…"
    return name if len(pictures) == 1 else f"{name} and {len(pictures) - 1} more"


class Checkpointer(Checkpoint):
    """Keeps checkpoints/last.ckpt: the state after the last timestep that is wholly done, files included.

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
