"""The front: PSNR to the VAE's picture against evaluations of the network, in five curves of three families.

    python benchmarks/front.py --out docs/front --figure docs/figures/front.png

A family is where the null embeddings come from: the empty prompt, the source prompt, or the reference. A curve is a
method with one setting that varies. Pictures are inverted one by one. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from measuring import in_one_line, options_of, publish
from methods import DEFAULT, FAST, PAPER, run_method
from subjects import KINDS, Subject, decibels, subjects_of
from torch.optim import Adam

from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion import InversionMethod
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models import DiffusionModel

LOOKS = {"empty prompt": "C0", "source prompt": "C1", "reference": "black"}
"""The colour of each family."""
TICKS = (20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Curve:
    """A method with one setting that varies."""

    family: str  # one of LOOKS
    name: str
    methods: tuple[InversionMethod, ...]
    line: str = "-o"


def curve(family: str, name: str, base: InversionMethod, line: str = "-o", **varied: Sequence[int]) -> Curve:
    """A curve of one method with the values of one setting."""
    ((setting, values),) = varied.items()
    return Curve(family, name, tuple(replace(base, **{setting: value}) for value in values), line)


EMPTY, SOURCE = "empty prompt", "source prompt"
ADAM = replace(DEFAULT, steps=20, optimizer=partial(Adam, lr=0.1))
PUBLISHED = NegativePrompt(fixed_point_iterations=0, pivot_tolerance=0.0)
STEPS = (10, 20, 50)
CURVES = (  # at most five
    curve(EMPTY, "from the empty prompt, the default's optimiser", DEFAULT, inner_steps=(2, 4, 6, 8, 10)),
    curve(EMPTY, "from the empty prompt, Adam at rate 0.1", ADAM, "--s", inner_steps=(1, 2, 3, 5, 10)),
    curve(SOURCE, "negative prompt, refined pivot (fast)", FAST, steps=STEPS),
    curve(SOURCE, "negative prompt as published", PUBLISHED, "--s", steps=STEPS),
    curve("reference", "the reference", PAPER, "-*", inner_steps=(1, 3, 10)),
)


@dataclass(frozen=True)
class Point:
    """A method with its settings: counts and decibels are means over pictures."""

    curve: str
    settings: str  # T and N
    evaluations: float
    drawings: tuple[float, float]  # dB to the VAE's picture: mean, worst
    photographs: tuple[float, float]


def words_of(method: InversionMethod) -> str:
    """The settings by which the points of a curve differ."""
    found = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return f"T = {found['steps']}, N = {found.get('inner_steps', found.get('corrections', 0))}"


def measure(model: DiffusionModel, subjects: list[Subject], curve: Curve, method: InversionMethod) -> Point:
    """Inverts the subjects one by one."""
    model.forwards = model.backwards = 0
    reached: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for subject in subjects:
        outcome = run_method(model, subject, method)
        reached[subject.kind] += decibels(model.decode(outcome.z_0), model.decode(subject.z_0)).tolist()
    evaluations = (model.forwards + model.backwards) / len(subjects)
    found = [(mean(x), min(x)) if x else (float("nan"),) * 2 for x in reached.values()]
    return Point(curve.name, words_of(method), evaluations, *found)


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| | settings | evaluations | drawings, dB: mean (worst) | photographs |",
        "|---|---|---|---|---|",
    ]
    for p in points:
        reached = [f"{value:.1f} ({worst:.1f})" for value, worst in (p.drawings, p.photographs)]
        lines.append(f"| {p.curve} | {p.settings} | {p.evaluations:.0f} | {' | '.join(reached)} |")
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """PSNR against evaluations, drawings and photographs side by side: a colour for each family."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, kind in zip(panels, KINDS, strict=True):
        for curve in CURVES:
            mine = sorted((p for p in points if p.curve == curve.name), key=lambda p: p.evaluations)
            x, y = [p.evaluations for p in mine], [getattr(p, kind)[0] for p in mine]
            axes.plot(x, y, curve.line, color=LOOKS[curve.family], label=curve.name, markersize=6)
        axes.set(title=kind, xlabel="evaluations for one picture, forwards and backwards", xscale="log")
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("PSNR to the VAE's picture, dB, mean; higher is better")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, format="png", dpi=130)


def work(options: argparse.Namespace) -> None:
    """Measures, prints, writes.

    Raises:
        UserError: No curve has such a word, or there is no such model.
    """
    curves = [curve for curve in CURVES if any(word in curve.name for word in options.curves)]
    if not curves:
        raise UserError("no curve has such a word; there are: " + "; ".join(curve.name for curve in CURVES))
    model = DiffusionModel.from_pretrained(options.model, device=options.device)
    subjects = subjects_of(model, options.drawings, options.photographs)
    points = [measure(model, subjects, curve, method) for curve in curves for method in curve.methods]
    pictures = f"{options.drawings} drawings, {options.photographs} photographs, model {options.model}"
    facts = {"fingerprint": model.fingerprint, "torch": torch.__version__, "device": model.device.type}
    publish(f"{pictures}.\n\n{table(points)}\n", {**facts, "points": list(map(asdict, points))}, options.out)
    if options.figure:
        write_atomically(options.figure, lambda p: plot(points, p))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = options_of(__doc__)
    parser.add_argument("--drawings", type=int, default=4)
    parser.add_argument("--photographs", type=int, default=4)
    parser.add_argument("--curves", nargs="+", default=[""], help="only those with such a word in their name")
    parser.add_argument("--figure", type=Path, help="a PNG: PSNR against evaluations")
    return in_one_line(partial(work, parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
