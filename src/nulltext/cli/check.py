"""The verb ``check``: whether the program does with a model what it should, in a report to paste into an issue."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

from nulltext import __version__
from nulltext.cli.options import pick
from nulltext.cli.parser import read_options
from nulltext.data import Frame
from nulltext.data.picture import read_picture
from nulltext.editing.phrases import put
from nulltext.errors import UserError
from nulltext.evaluation.selfcheck import Line, self_check
from nulltext.files import write_text
from nulltext.models.base import DiffusionModel
from nulltext.models.device import find_device, find_precision
from nulltext.models.loading import LoadingOptions, check_model, load_model
from nulltext.pixels import save_png, to_image
from nulltext.plots import strip
from nulltext.runs.memory import peak_memory

DESCRIPTION = (
    "Checks in a minute or two whether a model works here: it inverts and edits a picture. Writes a report."
)
LIBRARIES = ("torch", "diffusers", "transformers", "lightning", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class CheckRun:
    """The picture that the model is tried on, and where the report goes.

    Args:
        image: The picture.
        prompt: What the picture shows; by default the description inside its file.
        target: The target prompt of the edit; by default the picture's own prompt with its place changed to the snow.
        steps: T, the steps of every inversion.
        inner_steps: N, the optimiser steps of each timestep of null-text inversion.
        precision: 32-true, bf16-mixed or 16-mixed.
        device: cpu, cuda, cuda:1, mps; auto takes the first GPU there is.
        output: The folder in which the report's folder check_N is made.
    """

    image: Path = Path("sheep.jpg")
    prompt: str | None = None
    target: str | None = None
    steps: int = 10
    inner_steps: int = 4
    precision: str | int = "32-true"
    device: str = "auto"
    output: Path = Path("lightning_logs")


def main(words: Sequence[str]) -> int:
    """Runs the verb; returns 0, or 1 where something is not as expected."""
    model_options = ("model", LoadingOptions, field(default_factory=LoadingOptions))
    kind = make_dataclass("Check", [model_options], bases=(CheckRun,), frozen=True, kw_only=True)
    kind.__doc__ = (
        CheckRun.__doc__ or ""
    ).rstrip() + "\n        model: The model, and how it is loaded.\n    "
    options: Any = read_options(kind, list(words), "main.py check", DESCRIPTION)
    loading = pick(LoadingOptions, options.model)
    check_model(loading.pretrained, loading.variant, loading.revision, loading.family)
    find_precision(options.precision), find_device(options.device)
    read_picture(options.image, prompt=options.prompt)  # a mistake ends here, before weights load
    started = time.perf_counter()
    model = load_model(loading.pretrained, loading, options.device, precision=options.precision)
    frame = Frame(size=model.default_size, multiple=model.size_multiple)
    picture = read_picture(options.image, frame, prompt=options.prompt)
    facts = _facts(model, options, time.perf_counter() - started)
    print("\n".join(facts), flush=True)
    target, lines = options.target or put(picture.prompt, "in the snow"), []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"nulltext: note: {message}")
        for line in self_check(model, picture, target, options.steps, options.inner_steps):
            print(_said(line), flush=True)
            lines.append(line)
    facts.append(f"whole check: {time.perf_counter() - started:.0f} s, {_memory(model)}")
    folder = _write(options.output, facts, lines, picture)
    wrong = [line for line in lines if not line.ok]
    print(f"{len(lines) - len(wrong)} of {len(lines)} as expected; the report: {folder / 'report.md'}")
    return int(bool(wrong))


def _facts(model: DiffusionModel, options: Any, seconds: float) -> list[str]:
    """What was loaded, where, by which versions."""
    parameters = sum(p.numel() for p in model.denoiser.parameters())
    device = str(model.device)
    if model.device.type == "cuda":
        import torch

        device = f"{device} ({torch.cuda.get_device_name(model.device)})"
    return [
        f"nulltext {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        f"model: {model.name}, {model.pipeline}, predicts {model.kind}, {parameters / 1e6:.1f} million parameters",
        f"fingerprint {model.fingerprint[:16]}, {model.precision} on {device}, loaded in {seconds:.1f} s",
        f"T = {options.steps}, N = {options.inner_steps}, {model.default_size} pixels",
    ]


def _memory(model: DiffusionModel) -> str:
    return f"peak memory {peak_memory(model.device) / 2**20:.0f} MiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _said(line: Line) -> str:
    verdict = "ok  " if line.ok else "NOT "
    advice = "" if line.ok else f"; try: {line.advice}"
    return f"{verdict} {line.what}: {line.came} (expected: {line.expected}){advice}"


def _write(output: Path, facts: Sequence[str], lines: Sequence[Line], picture: Any) -> Path:
    """The report with its pictures, in a folder of its own."""
    folder = next(path for k in count() if not (path := output / f"check_{k}").exists())
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder} is being written by another check; try again") from None
    shown = [("the picture", picture.prompt, to_image(picture.pixels))]
    for k, line in enumerate(lines):
        if line.picture is not None and bool(line.picture.isfinite().all()):
            save_png(folder / f"{k}.png", line.picture)
            shown.append((line.came, line.what.split(",")[0], to_image(line.picture)))
    save_png(folder / "strip.png", strip(shown))
    rows = [
        f"| {line.what} | {line.expected} | {line.came} | {'yes' if line.ok else f'no: {line.advice}'} |"
        for line in lines
    ]
    table = ["| what | expected | came | as expected |", "|---|---|---|---|", *rows]
    text = ["# A check of nulltext", "", *(f"- {fact}" for fact in facts), "", *table, "", "![](strip.png)"]
    write_text(folder / "report.md", "\n".join(text) + "\n")
    return folder
