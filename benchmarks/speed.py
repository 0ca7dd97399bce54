"""What an inversion costs and what it gives: the reference, ours, and what needs no optimisation, side by side.

    python benchmarks/speed.py                              # the shipped model, 12 drawings and 4 photographs
    python benchmarks/speed.py --methods default --batch 8  # throughput: pictures that go through together
    python benchmarks/speed.py --shape sd15                 # random weights of a large architecture, for cost alone

Each method runs in a process of its own, by default one picture at a time, so that the peak memory is its own.
Evaluations are counted: a forward of the network is 1, a backward is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from large_models import SHAPES
from measuring import device_words, in_one_line, measure_apart, options_of, publish, room, stopwatch
from methods import METHODS, REFERENCE, SLOW, USUAL_METHODS, run_named
from safetensors.torch import load_file, save_file
from shapes import ROWS, USUAL, compare_shapes, measure_shape
from subjects import KINDS, decibels, subjects_of
from torch import Tensor

from nulltext.files import write_text
from nulltext.models import DiffusionModel
from nulltext.runs.memory import peak_memory


@dataclass
class Report:
    """One method over pictures; lists have one entry for each picture."""

    method: str
    kinds: list[str] = field(default_factory=list)  # drawings or photographs
    forwards: list[float] = field(default_factory=list)
    backwards: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)  # dB, to the VAE's picture
    below_bound: list[float] = field(default_factory=list)  # dB, missing to the VAE's PSNR to the picture
    peak_bytes: int = 0
    device: str = ""

    def of(self, kind: str) -> Report:
        """The same for one kind of pictures."""
        lists = ("kinds", "forwards", "backwards", "seconds", "psnr", "below_bound")
        mine = [k for k, found in enumerate(self.kinds) if found == kind]
        chosen = {name: [getattr(self, name)[k] for k in mine] for name in lists}
        return Report(self.method, **chosen, peak_bytes=self.peak_bytes, device=self.device)

    @property
    def evaluations(self) -> float:
        """Forwards and backwards, mean over pictures."""
        return mean(self.forwards) + mean(self.backwards)


def measure(options: argparse.Namespace, name: str) -> tuple[Report, dict[str, Tensor]]:
    """Runs one method over the pictures, after a warm-up of two steps.

    Returns:
        The report, and under ``null`` the null embeddings (T, pictures, L, d).
    """
    precision = "32-true" if name == REFERENCE else options.precision
    model = DiffusionModel.from_pretrained(options.model, precision=precision, device=options.device)
    model.denoiser.requires_grad_(name == REFERENCE)
    numbers = [options.drawings, options.photographs]
    if name in SLOW and options.slow is not None:
        numbers = [min(number, options.slow) for number in numbers]
    subjects = subjects_of(model, *numbers, 1 if name == REFERENCE else options.batch)
    changed = {"guidance_scale": options.guidance_scale} if options.guidance_scale else {}
    run_named(model, subjects[0], name, steps=2)
    report, learned = Report(name, device=device_words(model.device)), []
    for subject in subjects:
        model.forwards = model.backwards = 0
        elapsed = stopwatch(model.device)
        outcome = run_named(model, subject, name, **changed)
        n = len(subject.z_0)
        report.seconds += [elapsed() / n] * n
        report.kinds += [subject.kind] * n
        report.forwards += [model.forwards / n] * n
        report.backwards += [model.backwards / n] * n
        vae, ours = (model.decode(z) for z in (subject.z_0, outcome.z_0))
        report.psnr += decibels(ours, vae).tolist()
        report.below_bound += (decibels(vae, subject.pixels) - decibels(ours, subject.pixels)).tolist()
        learned.append(outcome.null)
    report.peak_bytes = peak_memory(model.device)
    return report, {"null": torch.cat(learned, dim=1)}


def measure_here(options: argparse.Namespace) -> None:
    """The other end of ``measure_apart``."""
    found, tensors = (measure_shape if options.shape else measure)(options, options.only)
    save_file(tensors, options.to.with_suffix(".safetensors"))
    write_text(options.to, json.dumps(asdict(found)))


def table(reports: Sequence[Report]) -> str:
    """The reports as a Markdown table: counts, then what they reach, then times, then memory."""
    reference = next((report for report in reports if report.method == REFERENCE), None)
    lines = [
        "| method | pictures | forwards | backwards | evaluations | to the reference | PSNR to the VAE's picture, dB: "
        "mean (worst) | below the VAE's bound, dB: mean (worst) | seconds, median | to the reference | peak memory |",
        "|---" * 11 + "|",
    ]
    for report in reports:
        seconds = median(report.seconds)
        lines.append(
            f"| {METHODS[report.method].title} | {len(report.seconds)} | {mean(report.forwards):.0f} "
            f"| {mean(report.backwards):.0f} | {report.evaluations:.0f} "
            f"| {_ratio(report.evaluations, reference and reference.evaluations)} "
            f"| {mean(report.psnr):.1f} ({min(report.psnr):.1f}) "
            f"| {mean(report.below_bound):.2f} ({max(report.below_bound):.2f}) | {seconds:.2f} "
            f"| {_ratio(seconds, reference and median(reference.seconds))} "
            f"| {report.peak_bytes / 2**20:.0f} MiB |"
        )
    return "\n".join(lines)


def _ratio(value: float, other: float | None) -> str:
    return "-" if other is None else f"1/{other / value:.1f}" if value < other else f"{value / other:.1f}"


def embeddings_apart(ours: Path, theirs: Path) -> float:
    """The largest difference between the embeddings of ``paper`` and the reference's."""
    return float((load_file(ours)["null"] - load_file(theirs)["null"]).abs().max())


def compare(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """All methods over the pictures: Markdown, and the same as data."""
    with room(options.keep) as folder:
        found = {name: measure_apart(name, argv, folder) for name in options.methods}
        reports = [Report(**report) for report, _ in found.values()]
        both = [found[name][1] for name in ("paper", REFERENCE) if name in found]
        apart = embeddings_apart(*both) if len(both) == 2 else None
    with_what = f"precision {options.precision} (the reference fp32), {reports[0].device}"
    text = f"Model {options.model}, {with_what}, torch {torch.__version__}.\n"
    for kind in KINDS:
        of_kind = [part for report in reports if (part := report.of(kind)).kinds]
        text += f"\n{kind.capitalize()}:\n\n{table(of_kind)}\n" if of_kind else ""
    if apart is not None:
        text += f"\nNull embeddings of `paper` against the reference's: largest difference {apart:.1e}.\n"
    data = {"torch": torch.__version__, "embeddings_apart": apart, "methods": [asdict(r) for r in reports]}
    return text, data


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = options_of(__doc__)
    parser.add_argument("--precision", default="32-true", help="of ours: 32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--drawings", type=int, default=12, help="how many drawn scenes")
    parser.add_argument("--photographs", type=int, default=4, help="how many of scikit-image, up to 4")
    parser.add_argument("--slow", type=int, help="how many of each for the reference and `paper`, at most")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=USUAL_METHODS)
    parser.add_argument("--guidance_scale", type=float, help="of all methods, in the place of their own")
    parser.add_argument("--batch", type=int, default=1, help="pictures that go through together")
    parser.add_argument("--shape", help=f"cost with random weights: {', '.join(SHAPES)}, or a UNet's config")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL, help="of --shape")
    parser.add_argument("--repeats", type=int, default=3, help="with --shape")
    parser.add_argument("--keep", type=Path, help="a folder for finished rows, which a further run reads")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def work(options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Measures, prints, writes."""
    if options.only:
        measure_here(options)
    else:
        publish(*(compare_shapes if options.shape else compare)(options, argv), options.out)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return in_one_line(partial(work, parse(argv), argv))


if __name__ == "__main__":
    sys.exit(main())
