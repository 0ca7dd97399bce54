"""Cost laws: what the default's time and memory do when T, the number of pictures or their size grows."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import device_words, measure_apart, median_seconds
from methods import run_ours
from subjects import drawn_pictures, photographs, subject_of
from torch import Tensor

from nulltext.backbone import Backbone
from nulltext.memory import peak_memory

BASE = "base"
LAWS = {  # T, pictures one after the other, side in the model's own
    BASE: (20, 1, 1.0),
    "steps-10": (10, 1, 1.0),
    "steps-40": (40, 1, 1.0),
    "pictures-2": (20, 2, 1.0),
    "pictures-4": (20, 4, 1.0),
    "side-1.5": (20, 1, 1.5),
    "side-2": (20, 1, 2.0),
}
FORWARDS = 10  # whose median is a forward's time


@dataclass
class Law:
    """One point: what was inverted, and what it cost."""

    name: str
    steps: int
    pictures: int
    side: int  # pixels
    seconds: float
    forwards: float
    backwards: float
    forward: float  # seconds that one UNet forward takes at this size
    peak_bytes: int
    device: str


def measure_law(options: argparse.Namespace, name: str) -> tuple[Law, dict[str, Tensor]]:
    """Measures one point, after a warm-up of two steps."""
    steps, number, times = LAWS[name]
    backbone = Backbone.from_pretrained(options.model, precision=options.precision, device=options.device)
    side = int(times * backbone.default_size)
    pictures = photographs(side)[:number] if options.photographs else drawn_pictures(number, side)
    subjects = [subject_of(backbone, *picture) for picture in pictures]
    first = subjects[0]
    forward = torch.no_grad()(lambda: backbone.predict_noise(first.z_0, 500, first.cond))
    run_ours(backbone, first, 2)
    forward_seconds = median_seconds(backbone.device, forward, FORWARDS)
    backbone.forwards = backbone.backwards = 0

    def work() -> None:
        for subject in subjects:
            run_ours(backbone, subject, steps)

    seconds = median_seconds(backbone.device, work, options.repeats)
    counts = (count / options.repeats for count in (backbone.forwards, backbone.backwards))
    peak, device = peak_memory(backbone.device), device_words(backbone.device)
    return Law(name, steps, number, side, seconds, *counts, forward_seconds, peak, device), {}


def compare_laws(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """All points: Markdown, and the same as data."""
    names = [name for name in LAWS if name in {BASE, *(options.laws or LAWS)}]
    with tempfile.TemporaryDirectory() as folder:
        laws = [Law(**measure_apart(name, argv, Path(folder))[0]) for name in names]
    base = laws[0]
    lines = [
        "| T | pictures | pixels | seconds | to the first row | UNet forwards | backwards | seconds an evaluation "
        "| one forward, s | to the first row | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for law in laws:
        cells = [
            f"{law.steps}",
            f"{law.pictures}",
            f"{law.side} x {law.side}",
            f"{law.seconds:.3f}",
            f"{law.seconds / base.seconds:.2f}",
            f"{law.forwards:.0f}",
            f"{law.backwards:.0f}",
            f"{law.seconds / (law.forwards + law.backwards):.4f}",
            f"{law.forward:.4f}",
            f"{law.forward / base.forward:.2f}",
            f"{law.peak_bytes / 2**20:.0f} MiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = (
        f"The default, model {options.model}, precision {options.precision}, {base.device}, torch "
        f"{torch.__version__}. Seconds are medians of {options.repeats}, of a forward of {FORWARDS}.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    return text, {"torch": torch.__version__, "laws": [asdict(law) for law in laws]}
