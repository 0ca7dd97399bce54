"""What an inversion costs at a large shape, with random weights: parts are measured, whole inversions computed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from large_models import Shape, random_unet
from measuring import device_words, measure_apart, median_seconds, stopwatch
from methods import DEFAULT, PAPER, run_ours
from subjects import drawn_pictures, subject_of
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.inversion_settings import InversionSettings
from nulltext.memory import peak_memory


@dataclass(frozen=True)
class Row:
    """How the UNet lies in memory and computes, and what is there beside it."""

    dtype: torch.dtype = torch.bfloat16
    frozen: bool = True
    layout: torch.memory_format = torch.contiguous_format
    checkpointing: bool = False  # activations are computed again going back
    whole: bool = False  # the VAE and the text encoders too: a picture in, a picture out
    tiling: bool = False  # of the VAE
    compiled: bool = False  # torch.compile; its forward alone


FP32 = Row(torch.float32)
ROWS = {
    "reference": replace(FP32, frozen=False),
    "ours_fp32": FP32,
    "ours_fp32_checkpointing": replace(FP32, checkpointing=True),
    "ours_fp32_compiled": replace(FP32, compiled=True),
    "whole_fp32": replace(FP32, whole=True),
    "whole_fp32_saving": replace(FP32, whole=True, checkpointing=True, tiling=True),
    "ours_bf16": Row(),
    "ours_bf16_checkpointing": Row(checkpointing=True),
    "ours_bf16_channels_last": Row(layout=torch.channels_last),
    "ours_bf16_compiled": Row(compiled=True),
    "whole_bf16": Row(whole=True),
    "whole_bf16_saving": Row(whole=True, checkpointing=True, tiling=True),
}
USUAL = ("reference", "ours_fp32", "ours_bf16")
PARTS = ("forward", "gradient", "pair", "stem", "pair_gradient")  # all but the last if nothing is said


@dataclass
class Units:
    """Seconds that one evaluation takes, 0 where it was not measured, and the peak memory of the process."""

    name: str
    parameters: int = 0
    forward: float = 0.0
    pair: float = 0.0  # a forward of a batch of two
    gradient: float = 0.0  # a forward and the backward to the null embedding
    pair_gradient: float = 0.0  # the same in one batch with the conditional prediction
    stem: float = 0.0  # of a forward, what comes before the first cross-attention
    compiling: float = 0.0  # the first forward, where it compiles
    peak_bytes: int = 0
    device: str = ""
    too_large: str = ""  # why nothing was measured


def measure_shape(options: argparse.Namespace, name: str) -> tuple[Units, dict[str, Tensor]]:
    """What one forward, one batch of two and one gradient cost, after a warm-up; or that they find no room."""
    row, bound = ROWS[name], memory_bound()
    units = Units(name, random_unet(options.shape, torch.float32, "meta").num_parameters())
    weights = units.parameters * (4 if row.dtype == torch.float32 else 2) * (1 if row.frozen else 2)
    try:
        with at_most(bound):
            _measure(options, row, units)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        what = "weights" if row.frozen else "weights and their gradients"
        units.too_large = (
            f"found no room: its {what} take {weights / 2**30:.1f} GiB, and beside them come the activations; "
            f"{bound / 2**30:.1f} GiB were free"
        )
    return units, {}


def _measure(options: argparse.Namespace, row: Row, units: Units) -> None:
    torch.manual_seed(0)
    unet = random_unet(options.shape, row.dtype).requires_grad_(not row.frozen).to(memory_format=row.layout)
    if row.checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    backbone = Shape(unet, options.device, whole=row.whole, tiling=row.tiling)
    side = unet.config.sample_size
    z = torch.randn(1, unet.config.in_channels, side, side, device=backbone.device)
    text = backbone.embed_prompt("")
    units.device = device_words(backbone.device)
    forward = torch.no_grad()(lambda: backbone.predict_noise(z, 500, text))
    timed = partial(median_seconds, backbone.device, repeats=options.repeats)
    if row.compiled:
        unet.compile(dynamic=False)
        units.compiling, units.forward = median_seconds(backbone.device, forward, 1), timed(forward)
        units.peak_bytes = peak_memory(backbone.device)
        return
    pair, both = torch.cat([z, z]), TextEmbedding.cat([text, text])

    def gradient(z: Tensor, text: TextEmbedding) -> None:
        sequence = text.sequence.clone().requires_grad_(True)
        backbone.predict_noise(z, 500, text.with_sequence(sequence)).square().mean().backward()

    if row.whole:
        z = backbone.encode_image(torch.rand(1, 3, 8 * side, 8 * side) * 2 - 1)
    gradient(z, text)
    if row.whole:
        backbone.decode_latents(z)
    works = {
        "forward": forward,
        "pair": torch.no_grad()(lambda: backbone.predict_noise(pair, 500, both)),
        "gradient": partial(gradient, z, text),
    }
    for name, work in works.items():
        if name in options.parts:
            setattr(units, name, timed(work))
    units.peak_bytes = peak_memory(backbone.device)  # of what an inversion does; what follows are leads
    if "pair_gradient" in options.parts and row.frozen:
        units.pair_gradient = median_seconds(backbone.device, partial(gradient, pair, both), 1)
    if "stem" in options.parts:
        units.stem = stem_seconds(backbone, forward)


def memory_bound() -> int:
    """Bytes that are free on this machine, but for a twentieth; where that is not known, more than there can be."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 1 << 62
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return free * 1024 * 19 // 20


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Lets the process allocate so many bytes: what does not fit is then an error, and not the system's end of it."""
    try:
        import resource
    except ImportError:  # not on this system
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def stem_seconds(backbone: Backbone, forward: Callable[[], Any]) -> float:
    """How long a forward takes to reach the first cross-attention, so far the same for every embedding."""
    found: list[float] = []
    first = next(module for name, module in backbone.unet.named_modules() if name.endswith(".attn2"))
    hook = first.register_forward_pre_hook(lambda *_: found.append(elapsed()))
    elapsed = stopwatch(backbone.device)
    forward()
    hook.remove()
    return found[0]


def longest_pivot(settings: InversionSettings) -> int:
    """The forwards of a pivot of which every step is refined as often as allowed."""
    t, k = settings.steps, settings.fixed_point_iterations
    return t * k + min(t, 2) if k else t


def seconds_of(units: Units, settings: InversionSettings, pivot: float, taken: float) -> float:
    """An inversion's time from the times of its parts, for so many forwards of the pivot and inner steps in all."""
    t = settings.steps
    pairs = t if settings.fresh_guided_step else 0  # guided steps in one batch of two, both halves anew
    plain = pivot + t  # the conditional predictions, or from the source prompt the last predictions
    plain += t if settings.warm_start and not pairs else 0  # the last null predictions, else in the pairs
    return plain * units.forward + taken * units.gradient + pairs * units.pair


def taken_by_drawings(number: int = 4) -> tuple[float, float]:
    """The forwards of the default's pivot and its inner steps, a picture: the mean over drawings, the shipped model.

    Without what is kept for edits, since a model that does not ask for it keeps none.
    """
    backbone, settings = Backbone.from_pretrained("farmyard"), replace(DEFAULT, detail_steps=0)
    for pixels, prompt in drawn_pictures(number, backbone.default_size):
        run_ours(backbone, subject_of(backbone, pixels, prompt), DEFAULT.steps, settings)
    taken = backbone.backwards / number
    return backbone.forwards / number - DEFAULT.steps - taken, taken


def minutes_of(units: Units, drawings: tuple[float, float]) -> list[float | None]:
    """Of `paper` at most, of the default at most and as drawings take it; None where a part is missing."""
    runs = [(PAPER, float(longest_pivot(PAPER)), float(PAPER.steps * PAPER.inner_steps))]
    if units.name != "reference":
        runs += [(DEFAULT, longest_pivot(DEFAULT), DEFAULT.steps * DEFAULT.inner_steps), (DEFAULT, *drawings)]
    return [
        seconds_of(units, settings, pivot, taken) / 60
        if units.forward and units.gradient and (units.pair or not settings.fresh_guided_step)
        else None
        for settings, pivot, taken in runs
    ]


def compare_shapes(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The reference's and our inversion at a large shape: Markdown, and the same as data."""
    names = [name for name in ROWS if name in options.rows]
    with tempfile.TemporaryDirectory() as folder:
        found = {name: Units(**measure_apart(name, argv, Path(folder))[0]) for name in names}
    drawings = taken_by_drawings()
    lines = [
        "| | forward, s | batch of two | gradient | gradient in a batch of two | stem | peak memory "
        "| `paper` at most, min | default at most | default as for drawings |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows: list[dict[str, Any]] = []
    for name, units in found.items():
        minutes = minutes_of(units, drawings)
        times = (units.forward, units.pair, units.gradient, units.pair_gradient, units.stem)
        cells = [f"{x:.3f}" if x else "-" for x in times]
        cells.append(f"{units.peak_bytes / 2**30:.2f} GiB" if units.peak_bytes else "-")
        cells += ["-" if m is None else f"{m:.2f}" for m in minutes]
        lines.append(f"| {name} | {' | '.join(cells + ['-'] * (9 - len(cells)))} |")
        rows.append({**asdict(units), "minutes": minutes})
    first = next(iter(found.values()))
    text = (
        f"Random weights of {options.shape} ({first.parameters / 1e6:.0f} million), at its own resolution, "
        f"{first.device}, torch {torch.__version__}. Minutes are counts of evaluations times the measured parts; "
        f"drawings took {drawings[0]:.0f} forwards for their pivots and {drawings[1]:.1f} inner steps.\n\n"
        + "\n".join(lines)
        + "\n"
        + "".join(f"\n{line}" for line in [*remarks(rows), *against_the_reference(rows)])
        + "\n"
    )
    return text, {"torch": torch.__version__, "rows": rows}


def remarks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What rows have to say that is no number of the table."""
    said = [f"- {row['name']} {row['too_large']}." for row in rows if row["too_large"]]
    return said + [
        f"- {row['name']}: the first forward, compiling, took {row['compiling']:.0f} s."
        for row in rows
        if row["compiling"]
    ]


def against_the_reference(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Ours in shares of the reference's time and memory, a line for each of our rows."""
    reference = next((row for row in rows if row["name"] == "reference" and None not in row["minutes"]), None)
    lines = []
    for row in rows if reference else []:
        if row is reference or None in row["minutes"]:
            continue
        paper, most, usual = (reference["minutes"][0] / minutes for minutes in row["minutes"])
        memory = row["peak_bytes"] / reference["peak_bytes"]
        lines.append(
            f"- {row['name']} against the reference: `paper` {1 / paper:.2f} of its time, {memory:.2f} of its memory; "
            f"the default at least {most:.0f} times as fast, {usual:.0f} times with the counts of drawings."
        )
    return lines
