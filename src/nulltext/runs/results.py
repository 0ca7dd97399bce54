"""What a finished picture leaves in its run: its folder, its numbers, and the lines that are printed."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.files import write_text
from nulltext.inversion.file import Inversion
from nulltext.metrics.pixel import psnr, ssim
from nulltext.pixels import save_png, to_unit
from nulltext.plots.report import report
from nulltext.runs.history import Cost, History
from nulltext.runs.metrics_csv import METRICS_CSV, read_rows

FAR_BELOW_BOUND = 1.0  # dB below the VAE's bound from which on the summary gives advice


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


@dataclass(frozen=True)
class Share:
    """What one picture's group cost, and where it was computed."""

    cost: Cost
    pictures: int  # of the group
    peak_memory: int  # bytes
    device: str


def measure(result: Result, share: Share, history: History, b: int) -> dict[str, Any]:
    """The content of metrics.json: fidelity, cost, and settings.

    Fidelity is measured on pixels clamped to the range of a picture; costs are divided by the pictures of the group.

    Args:
        result: The picture.
        share: What its group cost.
        history: The group's steps.
        b: The picture's row in the group.
    """
    inversion, method, cost = result.inversion, result.inversion.method.rpartition(".")[2], share.cost
    outputs = {"vae": result.vae, "ddim": result.ddim, method: result.reconstruction}
    unit = {name: to_unit(pixels.float().cpu())[None] for name, pixels in outputs.items()}
    original = to_unit(result.picture.pixels.float().cpu())[None]
    numbers: dict[str, Any] = {
        "name": result.picture.name,
        "prompt": result.picture.prompt,
        "method": inversion.method,
    }
    numbers |= {f"psnr_{name}": float(psnr(pixels, original)) for name, pixels in unit.items()}
    numbers |= {f"ssim_{name}": float(ssim(pixels, original)) for name, pixels in unit.items()}
    return {
        **numbers,
        f"psnr_{method}_to_vae": float(psnr(unit[method], unit["vae"])),
        "latent_mse": result.latent_mse,
        "inner_steps": int(sum(int(steps[b]) for steps in history.inner_steps)),
        "unet_forwards": cost.unet_forwards // share.pictures,
        "unet_backwards": cost.unet_backwards // share.pictures,
        "seconds_pivot": cost.seconds_pivot / share.pictures,
        "seconds_optimisation": cost.seconds_optimisation / share.pictures,
        "seconds_total": history.seconds / share.pictures,
        "peak_memory_bytes": share.peak_memory,
        "settings": {
            **inversion.settings,
            "model": inversion.model,
            "fingerprint": inversion.fingerprint,
            "device": share.device,
            "pictures_together": share.pictures,
            "size": list(inversion.size),
            "crop": result.picture.crop,
            "source": str(result.picture.path),
            "source_sha256": result.picture.sha256,
        },
    }


def method_of(numbers: Mapping[str, Any]) -> str:
    """The method's short name, by which a run's numbers are found: ``psnr_null_text``."""
    return str(numbers.get("method") or "null_text").rpartition(".")[2]


def write_result(folder: Path, result: Result, numbers: dict[str, Any], history: History, b: int) -> None:
    """The picture's folder; ``inversion.safetensors`` last, so that where it is, the rest is too."""
    for name, pixels in (
        ("original", result.picture.pixels),
        ("vae", result.vae),
        ("ddim", result.ddim),
        ("reconstruction", result.reconstruction),
    ):
        save_png(folder / f"{name}.png", pixels, {"prompt": result.picture.prompt})
    save_png(folder / "report.png", draw(result, numbers, history, b))
    write_text(folder / "metrics.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    result.inversion.save(folder / "inversion.safetensors")


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
