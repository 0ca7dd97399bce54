"""What an inversion costs at a large shape, with random weights: parts are measured, whole inversions computed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from large_models import Shape, random_network
from measuring import device_words, measure_apart, median_seconds, room
from methods import DEFAULT, run_method
from reference import INNER_STEPS, STEPS
from subjects import subjects_of
from torch import Tensor

from nulltext.diffusion import Level
from nulltext.models import DiffusionModel
from nulltext.runs.memory import peak_memory

LEVEL = Level(torch.tensor(0.5), torch.tensor(0.5))  # of what is measured; any other costs the same


@dataclass(frozen=True)
class Row:
    """How the network lies in memory and computes, and what is there beside it."""

    dtype: torch.dtype = torch.float32
    frozen: bool = True
    checkpointing: bool = False  # activations are computed again going back
    whole: bool = False  # the VAE and the text encoders too: a picture in, a picture out
    tiling: bool = False  # of the VAE
    compiled: str | None = None  # the mode of torch.compile


HELD = {  # how it is held in memory, beside the type
    "ours": {},
    "ours_checkpointing": {"checkpointing": True},
    "ours_compiled": {"compiled": "default"},
    "ours_graphs": {"compiled": "reduce-overhead"},  # CUDA graphs
    "whole": {"whole": True},
    "whole_saving": {"whole": True, "checkpointing": True, "tiling": True},
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROWS = {"reference": Row(frozen=False)}
ROWS |= {f"{name}_{t}": Row(dtype, **held) for t, dtype in TYPES.items() for name, held in HELD.items()}
USUAL = ("reference", "ours_fp32", "ours_bf16")


@dataclass
class Units:
    """Seconds that one evaluation takes, and the peak memory of the process."""

    name: str
    parameters: int
    forward: float
    gradient: float  # a forward and the backward to the null embedding
    peak_bytes: int
    device: str


MOST = (STEPS * (4 + INNER_STEPS), STEPS * INNER_STEPS)
"""Forwards (pivot, conditional, inner and guided steps) and backwards of the reference and of `paper`, at most."""


def measure_shape(options: argparse.Namespace, name: str) -> tuple[Units, dict[str, Tensor]]:
    """What one forward and one gradient cost, after a warm-up."""
    torch.manual_seed(0)
    row = ROWS[name]
    network = random_network(options.shape, row.dtype, options.device).requires_grad_(not row.frozen)
    if row.checkpointing:
        network.enable_gradient_checkpointing()
        network.train()
    if row.compiled:
        network.compile(mode=row.compiled)
    model = Shape(network, options.device, whole=row.whole, tiling=row.tiling)
    side, text = network.config.sample_size, model.embed("")
    z = torch.randn(1, network.config.in_channels, side, side, device=model.device)
    if row.whole:
        z = model.encode(torch.rand(1, 3, 8 * side, 8 * side) * 2 - 1)

    def gradient() -> None:
        learned = text.with_sequence(text.sequence.clone().requires_grad_(True))
        model.predict_at(z, 500, LEVEL, learned).output.square().mean().backward()

    @torch.no_grad()
    def forward() -> None:
        model.predict_at(z, 500, LEVEL, text)

    for warm_up in (3 if row.compiled else 1) * (gradient, forward):  # a graph is captured late
        warm_up()
    if row.whole:
        model.decode(z)
    timed = partial(median_seconds, model.device, repeats=options.repeats)
    seconds, peak = (timed(forward), timed(gradient)), peak_memory(model.device)
    device = f"{device_words(model.device)}, torch {torch.__version__}"
    return Units(name, network.num_parameters(), *seconds, peak, device), {}


def counts_of_default(number: int = 4) -> tuple[float, float]:
    """Forwards and backwards of the default for drawings, mean; the shipped model."""
    model = DiffusionModel.from_pretrained()
    for subject in subjects_of(model, number, 0):
        run_method(model, subject, DEFAULT)
    return model.forwards / number, model.backwards / number


def minutes_of(units: Units, counts: tuple[float, float]) -> float:
    """An inversion's time from the times of its parts; a gradient is a forward with its backward."""
    forwards, backwards = counts
    return ((forwards - backwards) * units.forward + backwards * units.gradient) / 60


def compare_shapes(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The reference's and our inversion at a large shape: Markdown, and the same as data."""
    with room(options.keep) as folder:
        found = [Units(**measure_apart(name, argv, folder)[0]) for name in options.rows]
    default, units = counts_of_default(), found[0]
    base = next((minutes_of(units, MOST) for units in found if units.name == "reference"), 0)
    text = (
        f"Random weights of {options.shape} ({units.parameters / 1e6:.0f} million), at its own size, {units.device}. "
        f"Minutes are counts of evaluations times the measured parts: `paper` at most {MOST[0]} forwards and "
        f"{MOST[1]} backwards, the default as counted on drawings {default[0]:.0f} and {default[1]:.0f}. "
        "In brackets: of the reference's time for `paper`.\n\n"
        "| | forward, s | gradient, s | peak memory | `paper` at most, min | the default, min |\n"
        f"{'|---' * 6}|\n"
    )
    for units in found:
        cells = [f"{units.forward:.3f}", f"{units.gradient:.3f}", f"{units.peak_bytes / 2**30:.2f} GiB"]
        for minutes in (minutes_of(units, MOST), minutes_of(units, default)):
            cells.append(f"{minutes:.2f}" + (f" (1/{base / minutes:.1f})" if base else ""))
        text += f"| {units.name} | {' | '.join(cells)} |\n"
    return text, {"default": default, "rows": list(map(asdict, found))}
