"""What an inversion costs at a large shape, with random weights: parts are measured, whole inversions computed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import device_words, measure_apart, median_seconds, stopwatch
from methods import DEFAULT, PAPER
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError
from nulltext.inversion import InversionSettings
from nulltext.memory import peak_memory

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
SHAPES = {  # name of a row: type of the weights, whether they are frozen, their layout
    "reference": (torch.float32, False, torch.contiguous_format),
    "ours_fp32": (torch.float32, True, torch.contiguous_format),
    "ours_bf16": (torch.bfloat16, True, torch.contiguous_format),
    "ours_bf16_channels_last": (torch.bfloat16, True, torch.channels_last),
}


@dataclass
class Units:
    """Seconds that one evaluation takes, and the peak memory of the process that did them."""

    name: str
    forward: float
    pair: float  # a forward of a batch of two
    gradient: float  # a forward and the backward to the null embedding
    pair_gradient: float  # the same in one batch with the conditional prediction
    stem: float  # of a forward, what comes before the first cross-attention
    peak_bytes: int
    parameters: int
    device: str


def random_unet(shape: str, dtype: torch.dtype) -> Any:
    """A UNet of a known shape, or of a diffusers config (its file, or a model folder), with random weights."""
    from diffusers import UNet2DConditionModel

    if shape in UNETS:
        config = UNETS[shape]
    else:
        file = Path(shape)
        file = next((f for f in (file / "unet/config.json", file / "config.json") if f.is_file()), file)
        if not file.is_file():
            raise UserError(
                f"there is no UNet config {shape}; give {', '.join(UNETS)}, a model folder, or a file"
            )
        config = UNet2DConditionModel.load_config(file)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel.from_config(config).eval()
    finally:
        torch.set_default_dtype(default)


class Shape(Backbone):
    """A backbone that is a UNet alone: enough to measure what its evaluations cost."""

    def __init__(self, unet: Any, device: str) -> None:
        self.unet = unet.to(device)
        self.scheduler_config = {"prediction_type": "epsilon"}
        self.forwards = self.backwards = 0

    def embed_prompt(
        self, prompts: str | Sequence[str], size: tuple[int, int] | None = None
    ) -> TextEmbedding:
        """A random embedding of the shape that the UNet reads."""
        config = self.unet.config
        text = TextEmbedding(torch.randn(1, 77, config.cross_attention_dim, device=self.device))
        if config.addition_embed_type != "text_time":
            return text
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * config.sample_size
        ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self.device)
        return TextEmbedding(text.sequence, torch.randn(1, pooled, device=self.device), ids)


def measure_shape(options: argparse.Namespace, name: str) -> tuple[Units, dict[str, Tensor]]:
    """What one forward, one batch of two and one gradient cost, after a warm-up of a gradient."""
    dtype, frozen, layout = SHAPES[name]
    torch.manual_seed(0)
    unet = random_unet(options.shape, dtype).requires_grad_(not frozen).to(memory_format=layout)
    backbone = Shape(unet, options.device)
    side = unet.config.sample_size
    z = torch.randn(1, unet.config.in_channels, side, side, device=backbone.device)
    text = backbone.embed_prompt("")
    pair, both = torch.cat([z, z]), TextEmbedding.cat([text, text])
    forward = torch.no_grad()(lambda: backbone.predict_noise(z, 500, text))
    forward_pair = torch.no_grad()(lambda: backbone.predict_noise(pair, 500, both))

    def gradient(z: Tensor, text: TextEmbedding) -> None:
        sequence = text.sequence.clone().requires_grad_(True)
        backbone.predict_noise(z, 500, text.with_sequence(sequence)).square().mean().backward()

    gradient(z, text)
    works = [forward, forward_pair, partial(gradient, z, text)]
    seconds = [median_seconds(backbone.device, work, options.repeats) for work in works]
    peak = peak_memory(backbone.device)  # of what an inversion does; the batch of two below is a lead
    seconds.append(median_seconds(backbone.device, partial(gradient, pair, both), 1) if frozen else 0.0)
    units = Units(
        name,
        *seconds,
        stem=stem_seconds(backbone, forward),
        peak_bytes=peak,
        parameters=sum(p.numel() for p in unet.parameters()),
        device=device_words(backbone.device),
    )
    return units, {}


def stem_seconds(backbone: Backbone, forward: Callable[[], Any]) -> float:
    """How long a forward takes to reach the first cross-attention, so far the same for every embedding."""
    found: list[float] = []
    first = next(module for name, module in backbone.unet.named_modules() if name.endswith(".attn2"))
    hook = first.register_forward_pre_hook(lambda *_: found.append(elapsed()))
    elapsed = stopwatch(backbone.device)
    forward()
    hook.remove()
    return found[0]


def seconds_of(units: Units, settings: InversionSettings, taken: int) -> float:
    """An inversion's time from the times of its parts, for so many inner steps in all."""
    t, k = settings.steps, settings.fixed_point_iterations
    pairs = t if settings.fresh_guided_step else 0  # guided steps in one batch of two, both halves anew
    plain = t * k + min(t, 2) if k else t  # the pivot
    plain += t  # the conditional predictions, or from the source prompt the last predictions
    plain += t if settings.warm_start and not pairs else 0  # the last null predictions, else in the pairs
    return plain * units.forward + taken * units.gradient + pairs * units.pair


def compare_shapes(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The reference's and our inversion at a large shape: Markdown, and the same as data."""
    names = [name for name in SHAPES if name in options.rows]
    with tempfile.TemporaryDirectory() as folder:
        found = {name: Units(**measure_apart(name, argv, Path(folder))[0]) for name in names}
    lines = [
        "| | forward, s | batch of two | gradient | gradient in a batch of two | stem | peak memory "
        "| `paper`, all inner steps, min | default, every timestep optimised | default, none |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows: list[dict[str, Any]] = []
    for name, units in found.items():
        minutes = [seconds_of(units, PAPER, PAPER.steps * PAPER.inner_steps) / 60]
        if name != "reference":
            minutes += [seconds_of(units, DEFAULT, n) / 60 for n in (DEFAULT.steps * DEFAULT.inner_steps, 0)]
        times = (units.forward, units.pair, units.gradient, units.pair_gradient, units.stem)
        cells = [f"{x:.3f}" if x else "-" for x in times]
        cells += [f"{units.peak_bytes / 2**30:.2f} GiB", *(f"{m:.2f}" for m in minutes)]
        lines.append(f"| {name} | {' | '.join(cells + ['-'] * (9 - len(cells)))} |")
        rows.append({**asdict(units), "minutes": minutes})
    first = next(iter(found.values()))
    text = (
        f"Random weights of {options.shape} ({first.parameters / 1e6:.0f} million), at its own resolution, "
        f"{first.device}, torch {torch.__version__}. Minutes are counts of evaluations times the measured parts.\n\n"
        + "\n".join(lines)
        + "\n"
        + "".join(f"\n{line}" for line in against_the_reference(rows))
        + "\n"
    )
    return text, {"torch": torch.__version__, "rows": rows}


def against_the_reference(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Ours in shares of the reference's time and memory, a line for each of our rows."""
    reference = next((row for row in rows if row["name"] == "reference"), None)
    lines = []
    for row in rows if reference else []:
        if row is reference:
            continue
        paper, most, least = (reference["minutes"][0] / minutes for minutes in row["minutes"])
        memory = row["peak_bytes"] / reference["peak_bytes"]
        lines.append(
            f"- {row['name']} against the reference: `paper` {1 / paper:.2f} of its time, {memory:.2f} of its memory; "
            f"the default {most:.0f} times as fast if every timestep is optimised, {least:.0f} if none is."
        )
    return lines
