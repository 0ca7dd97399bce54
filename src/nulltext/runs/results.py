"""What a finished picture leaves in its run: its folder, its numbers, its row of metrics.csv, and what is printed."""

import csv
import io
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.files import alone, write_text
from nulltext.inversion import StepRecord
from nulltext.inversion.file import Inversion
from nulltext.metrics.pixel import psnr, ssim
from nulltext.pixels import save_png, to_unit
from nulltext.plots.report import report
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.memory import peak_memory

METRICS_CSV = "metrics.csv"
FAR_BELOW_BOUND = 1.0  # dB below the VAE's bound from which on the summary gives advice


@dataclass
class Cost:
    """What the inversion of a group has cost so far; network evaluations are counted per latent."""

    seconds_pivot: float = 0.0
    seconds_optimisation: float = 0.0
    unet_forwards: int = 0
    unet_backwards: int = 0


@dataclass
class History:
    """What the steps of the current group left behind; B pictures."""

    losses: list[Tensor] = field(default_factory=list)  # of each step: (n, B), before each inner step
    after: list[Tensor] = field(default_factory=list)  # of each step: (B,), after the last
    inner_steps: list[Tensor] = field(default_factory=list)  # of each step: (B,)
    seconds: float = 0.0

    def add(self, record: StepRecord, after: Tensor) -> None:
        """One more step. A step that a crash made run twice replaces its first run."""
        new = {"losses": record.losses, "after": after, "inner_steps": record.inner_steps}
        for name, value in new.items():
            getattr(self, name)[record.step :] = [value.detach().cpu()]

    def before(self, b: int) -> list[float]:
        """The loss of each step before its first inner step; NaN where there was none."""
        return [float(losses[0, b]) if len(losses) else float("nan") for losses in self.losses]


def seconds_since(started: float) -> float:
    """By ``time.perf_counter``; 0 where the clock was set back meanwhile."""
    return max(0.0, time.perf_counter() - started)


@dataclass(frozen=True)
class Result:
    """One finished picture. Pixels are (3, H, W) in [-1, 1]."""

    picture: Picture
    inversion: Inversion
    title: str  # of the method
    vae: Tensor  # what the VAE alone makes of it: the bound
    ddim: Tensor  # guided sampling from the same noise under the empty prompt
    reconstruction: Tensor  # guided sampling under the method
    latent_mse: float  # reconstruction against the picture's latents


def measure(result: Result, cost: Cost, history: History, b: int, device: torch.device) -> dict[str, Any]:
    """The content of metrics.json for row b of a group: fidelity, cost, and settings.

    Fidelity is measured on pixels clamped to the range of a picture; costs are divided by the pictures of the group.
    """
    inversion, picture, together = result.inversion, result.picture, len(history.after[0])
    method = inversion.method.rpartition(".")[2]
    outputs = {"vae": result.vae, "ddim": result.ddim, method: result.reconstruction}
    unit = {name: to_unit(pixels.float().cpu())[None] for name, pixels in outputs.items()}
    original = to_unit(picture.pixels.float().cpu())[None]
    return {
        "name": picture.name,
        "prompt": picture.prompt,
        "method": inversion.method,
        **{f"psnr_{name}": float(psnr(pixels, original)) for name, pixels in unit.items()},
        **{f"ssim_{name}": float(ssim(pixels, original)) for name, pixels in unit.items()},
        f"psnr_{method}_to_vae": float(psnr(unit[method], unit["vae"])),
        "latent_mse": result.latent_mse,
        "inner_steps": sum(int(steps[b]) for steps in history.inner_steps),
        "unet_forwards": cost.unet_forwards // together,
        "unet_backwards": cost.unet_backwards // together,
        "seconds_pivot": cost.seconds_pivot / together,
        "seconds_optimisation": cost.seconds_optimisation / together,
        "seconds_total": history.seconds / together,
        "peak_memory_bytes": peak_memory(device),
        "settings": {
            **inversion.settings,
            "model": inversion.model,
            "fingerprint": inversion.fingerprint,
            "device": str(device),
            "pictures_together": together,
            "size": list(inversion.size),
            "crop": picture.crop,
            "source": str(picture.path),
            "source_sha256": picture.sha256,
        },
    }


def method_of(numbers: Mapping[str, Any]) -> str:
    """The method's short name, by which a run's numbers are found: ``psnr_null_text``."""
    return str(numbers.get("method") or "null_text").rpartition(".")[2]


def write_result(folder: Path, result: Result, numbers: dict[str, Any], history: History, b: int) -> None:
    """The picture's folder; ``inversion.safetensors`` last, so that where it is, the rest is too."""
    outputs = {"vae": result.vae, "ddim": result.ddim, "reconstruction": result.reconstruction}
    for name, pixels in {"original": result.picture.pixels, **outputs}.items():
        save_png(folder / f"{name}.png", pixels, {"prompt": result.picture.prompt})
    save_png(folder / "report.png", draw(result, numbers, history, b))
    write_text(folder / "metrics.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    result.inversion.save(folder / ARTIFACT)


def draw(result: Result, numbers: Mapping[str, Any], history: History, b: int) -> Image.Image:
    """The report of one picture."""
    settings, method, w = numbers["settings"], method_of(numbers), result.inversion.guidance_scale

    def label(title: str, name: str) -> str:
        return f"{title}: {numbers[f'psnr_{name}']:.2f} dB, SSIM {numbers[f'ssim_{name}']:.3f}"

    shown = ("steps", "inner_steps", "corrections", "start", "fixed_point_iterations", "pivot_tolerance")
    facts = [
        f"{settings['model']}, {result.inversion.size[1]} x {result.inversion.size[0]} pixels, {settings['precision']}",
        ", ".join(f"{name} {settings[name]:g}" for name in shown if name in settings)
        + f", guidance scale {w:g}",
        f"{numbers['inner_steps']} inner steps, {numbers['unet_forwards']} forwards, "
        f"{numbers['unet_backwards']} backwards",
        f"pivot {numbers['seconds_pivot']:.1f} s, optimisation {numbers['seconds_optimisation']:.1f} s, "
        f"in all {numbers['seconds_total']:.1f} s",
        f"{result.title} to the VAE's picture: {numbers[f'psnr_{method}_to_vae']:.2f} dB",
    ]
    return report(
        title=f"{result.picture.name}: {result.picture.prompt or 'empty prompt'}",
        pictures=[
            ("original", result.picture.pixels),
            (label("VAE bound", "vae"), result.vae),
            (label(f"DDIM, w {w:g}", "ddim"), result.ddim),
            (label(f"{result.title}, w {w:g}", method), result.reconstruction),
        ],
        before=history.before(b),
        after=[float(values[b]) for values in history.after],
        facts=facts,
    )


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, numbers: Mapping[str, Any], order: Sequence[str] = ()) -> None:
    """Adds the content of metrics.json but its settings to metrics.csv, in place of a row of the same name.

    Rows are in the order of these names of all pictures of the run, whichever process finished them when.
    """
    row = {key: str(value) for key, value in numbers.items() if key != "settings"}
    place = {name: k for k, name in enumerate(order)}
    text = io.StringIO()
    with alone(path.parent.parent):
        rows = [old for old in read_rows(path) if old.get("name") != row["name"]] + [row]
        columns = list(dict.fromkeys(key for each in (row, *rows) for key in each))
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda entry: place.get(entry["name"], len(place))))
        write_text(path, text.getvalue())


def summary(numbers: Mapping[str, Any], title: str) -> str:
    """One line about one finished picture."""
    reached, bound = numbers[f"psnr_{method_of(numbers)}"], numbers["psnr_vae"]
    line = (
        f"{numbers['name']}: {title} {reached:.2f} dB "
        f"(VAE bound {bound:.2f}, DDIM {numbers['psnr_ddim']:.2f}) in {numbers['seconds_total']:.1f} s"
    )
    if bound - reached > FAR_BELOW_BOUND:
        line += "; below its bound: try more --model.inner_steps or --model.steps"
    return line


def closing(folder: Path) -> str:
    """The last line of a run: what there is, and what to type next."""
    rows = read_rows(folder / METRICS_CSV)
    if not rows:
        return f"nothing was inverted in {folder}"
    shown = os.path.relpath(folder)
    shown = str(folder) if shown.startswith("..") else shown
    reached = sum(float(row[f"psnr_{method_of(row)}"]) for row in rows) / len(rows)
    bound = sum(float(row["psnr_vae"]) for row in rows) / len(rows)
    what = rows[0]["name"] if len(rows) == 1 else f"{len(rows)} pictures"
    place = shown if len(rows) == 1 else f"{shown}/{rows[0]['name']}"
    return (
        f"{what} at {reached:.2f} dB, VAE bound {bound:.2f}; see {shown}; now change words of the prompt: "
        f"python main.py edit --inversion {shlex.quote(place)} --prompt {shlex.quote(rows[0]['prompt'])}"
    )
