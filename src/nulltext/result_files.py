"""What a finished picture leaves in its run: its folder, its row of metrics.csv, and what is said of it."""

import csv
import io
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltext import report
from nulltext.farmyard.world import SHIPPED
from nulltext.files import alone, write_atomically
from nulltext.history import History
from nulltext.memory import peak_memory
from nulltext.metrics import psnr, ssim
from nulltext.module import NullTextInversion, Result
from nulltext.pictures import to_image

METRICS = "metrics.csv"
FAR_BELOW_BOUND = 1.0  # dB below the VAE's bound from which on the summary says what to do


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
        "pictures_together": share,
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
    animals = "|".join(str(animal) for animal in SHIPPED.choices["animal"])
    found = re.search(rf"\b(an?|the) ([\w-]+ )?({animals})\b", prompt, re.IGNORECASE)
    if found is None:
        return prompt
    article, adjective, animal = found.groups("")
    other = "horse" if animal.lower() != "horse" else "cow"
    if not adjective and article.lower() == "an":  # an elk, a horse
        article = article[0]
    return f"{prompt[: found.start()]}{article} {adjective}{other}{prompt[found.end() :]}"
