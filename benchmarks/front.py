"""The front: how near the walk comes back to the picture, against the UNet evaluations that it took.

    python benchmarks/front.py --out docs/front --figure docs/figures/front.png
    python benchmarks/front.py --out docs/front --figure docs/figures/front.png --resume  # after an interruption

All pictures go through in one batch: drawings that the model was not trained on, and photographs. What the batch
asks for pictures that need no further step is not counted, so a picture's evaluations are what it takes by itself.
A variant is a way of inverting; most are tried at several numbers of steps T. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from subjects import check_installed, drawn_pictures, photographs
from torch import Tensor
from variants import STARTS, VARIANTS, WALKS, Variant

from nulltext.backbone import Backbone
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion_settings import InversionSettings

REFERENCE = "reference"
ARROW = {"arrowstyle": "-"}
TICKS = (20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Point:
    """A variant at one T; evaluations are forwards and backwards a picture, the pivot's included."""

    name: str
    start: str  # where the null embeddings start
    family: str  # what the plot calls the variant
    steps: int
    forwards: float
    backwards: float
    drawn: tuple[float, float]  # dB to the VAE reconstruction: mean, worst
    photographs: tuple[float, float]
    distance: float | None  # of the null embeddings to the empty prompt, in that of the source prompt, mean

    @property
    def evaluations(self) -> float:
        """Forwards and backwards."""
        return self.forwards + self.backwards


def measure(
    backbone: Backbone,
    pixels: Tensor,
    prompts: Sequence[str],
    drawn: int,
    variants: Sequence[Variant],
    known: Mapping[tuple[str, int], Point] | None = None,
) -> Iterator[Point]:
    """Variants at all their T, the pivots shared; the first ``drawn`` pictures are drawings, ``known`` what is done."""
    z_0, cond = backbone.encode_image(pixels), backbone.embed_prompt(prompts)
    vae, empty = backbone.decode_latents(z_0), backbone.embed_prompt("").sequence
    pivots: dict[tuple[int, int, float, str], tuple[Tensor, int]] = {}
    for variant in variants:
        for steps in variant.steps:
            if known and (variant.name, steps) in known:
                yield known[variant.name, steps]
                continue
            print(f"measuring {variant.name}, T = {steps} ...", file=sys.stderr, flush=True)
            schedule, settings = backbone.schedule(steps), replace(variant.settings, steps=steps)
            backbone.forwards = backbone.backwards = 0
            key = steps, settings.fixed_point_iterations, settings.pivot_tolerance, variant.pivot
            if key not in pivots:
                pivot = variant.make_pivot(backbone, schedule, z_0, cond)
                pivots[key] = pivot, backbone.forwards
            pivot, backbone.forwards = pivots[key]
            outcome = WALKS[variant.walk][0](backbone, schedule, pivot, cond, settings)
            mse = (backbone.decode_latents(outcome.z_0) - vae).square().mean(
                dim=(1, 2, 3)
            ) / 4  # pixels span 2
            psnr = (-10 * mse.log10()).tolist()
            found = [(sum(x) / len(x), min(x)) for x in (psnr[:drawn], psnr[drawn:])]
            counts = (count / len(z_0) for count in (backbone.forwards, backbone.backwards))
            away = (outcome.null - empty).flatten(2).norm(dim=2) / (cond.sequence - empty).flatten(1).norm(
                dim=1
            )
            names = variant.name, variant.start, variant.family
            yield Point(*names, steps, *counts, *found, float(away.mean()))


def front_of(points: Sequence[Point], kind: str) -> list[Point]:
    """The points that no cheaper one equals, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.evaluations, -getattr(p, kind)[0])):
        if not front or getattr(point, kind)[0] > getattr(front[-1], kind)[0]:
            front.append(point)
    return front


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| start, inner steps, refinements of the pivot | T | forwards | backwards | evaluations "
        "| drawn, dB: mean (worst) | photographs | distance to the empty prompt |",
        "|---|---|---|---|---|---|---|---|",
    ]
    fronts = {kind: front_of(points, kind) for kind in ("drawn", "photographs")}
    for p in points:
        cells = [p.name, *(f"{n:.0f}" for n in (p.steps, p.forwards, p.backwards, p.evaluations))]
        for kind, front in fronts.items():
            mean, worst = getattr(p, kind)
            cells.append(f"**{mean:.1f}** ({worst:.1f})" if p in front else f"{mean:.1f} ({worst:.1f})")
        lines.append(f"| {' | '.join([*cells, '-' if p.distance is None else f'{p.distance:.2f}'])} |")
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """PSNR against evaluations: a colour for the start, a marker for how it learns, a line where T varies."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(13, 6))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    starts = [start for start in (*STARTS.values(), REFERENCE) if any(p.start == start for p in points)]
    families = list(dict.fromkeys(p.family for p in points if p.start != REFERENCE))
    colours = dict(zip((*STARTS.values(), REFERENCE), ("C0", "C1", "C3", "black"), strict=True))
    markers = {**dict(zip(families, "os<^DvPXd", strict=False)), REFERENCE: "*"}
    for axis, kind in zip(axes, ("drawn", "photographs"), strict=True):
        for name in dict.fromkeys(p.name for p in points):
            mine = [p for p in points if p.name == name]
            x, y = [p.evaluations for p in mine], [getattr(p, kind)[0] for p in mine]
            look = {"color": colours[mine[0].start], "marker": markers[mine[0].family]}
            size = 13 if mine[0].family == REFERENCE else 5
            axis.plot(x, y, markersize=size, lw=0.6, alpha=0.8, **look)
        front = front_of(points, kind)
        x, y = [p.evaluations for p in front], [getattr(p, kind)[0] for p in front]
        axis.step(x, y, where="post", color="0.6", lw=2, zorder=0)
        for p in points:
            if p.name.endswith("(default)") and p.steps == InversionSettings().steps:
                here = p.evaluations, getattr(p, kind)[0]
                axis.annotate("the default", here, (12, -40), textcoords="offset points", arrowprops=ARROW)
        axis.set(title=kind, xlabel="UNet evaluations a picture, forwards and backwards", xscale="log")
        axis.set_xticks(TICKS, [str(tick) for tick in TICKS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR to the VAE reconstruction, dB, mean")
    handles = [Line2D([], [], color=colours[s], lw=4, label=f"start: {s}") for s in starts if s != REFERENCE]
    handles += [Line2D([], [], color="0.3", marker=markers[f], lw=0, label=f) for f in families]
    if REFERENCE in starts:
        handles.append(Line2D([], [], color="black", marker="*", markersize=13, lw=0, label=REFERENCE))
    handles.append(Line2D([], [], color="0.6", lw=2, label="the front"))
    figure.legend(handles=handles, loc="outside right center", fontsize=9)
    figure.tight_layout(rect=(0, 0, 0.79, 1))
    figure.savefig(path, format="png", dpi=130)


def reference_point(drawn: Path, photographs: Path) -> Point:
    """The reference's point, from the JSON that ``speed.py`` wrote of drawings and of photographs."""
    rows = []
    for path in (drawn, photographs):
        methods = json.loads(path.read_text())["methods"]
        rows.append(next(m for m in methods if m["method"] == "reference"))
    counts = [sum(rows[0][key]) / len(rows[0][key]) for key in ("forwards", "backwards")]
    psnr = [(sum(row["psnr"]) / len(row["psnr"]), min(row["psnr"])) for row in rows]
    return Point(f"{REFERENCE} (paper)", REFERENCE, REFERENCE, 50, *counts, *psnr, None)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="farmyard", help="the shipped model, a diffusers folder, or a hub id"
    )
    parser.add_argument("--pictures", type=int, default=4, help="how many drawings, beside four photographs")
    parser.add_argument(
        "--reference", nargs=2, type=Path, help="speed.py's JSON: of drawings, of photographs"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--variants", nargs="+", default=[""], help="only those with one of these words in their name"
    )
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json as well")
    parser.add_argument("--resume", action="store_true", help="measure only what OUT.json lacks")
    parser.add_argument("--figure", type=Path, help="a PNG: PSNR against evaluations")
    options = parser.parse_args(argv)
    variants = [v for v in VARIANTS if any(word in v.name for word in options.variants)]
    try:
        check_installed("skimage", *["matplotlib"] * bool(options.figure))
        if not variants:
            names = "\n".join(variant.name for variant in VARIANTS)
            raise UserError(f"no variant has such a word in its name; there are\n{names}")
        backbone = Backbone.from_pretrained(options.model, device=options.device)
    except UserError as error:
        print(f"front: error: {error}", file=sys.stderr)
        return 2
    size = backbone.default_size
    pictures = [*drawn_pictures(options.pictures, size), *photographs(size)]
    pixels, prompts = torch.stack([p for p, _ in pictures]), [prompt for _, prompt in pictures]
    facts = {"model": options.model, "fingerprint": backbone.fingerprint, "drawings": options.pictures}
    facts |= {"torch": torch.__version__, "device": backbone.device.type}
    known = points_in(options.out, facts) if options.resume else {}
    points = []
    for point in measure(backbone, pixels, prompts, options.pictures, variants, known):
        points.append(point)
        known.pop((point.name, point.steps), None)
        if options.out:
            write(options.out.with_suffix(".json"), facts, [*points, *known.values()])
    if options.reference:
        points.append(reference_point(*options.reference))
    text = f"{options.pictures} drawings, {len(pictures) - options.pictures} photographs, model {options.model}.\n\n"
    text += table(points) + "\n"
    print(text)
    if options.out:
        write(options.out.with_suffix(".json"), facts, points)
        write_atomically(options.out.with_suffix(".md"), lambda p: p.write_text(text))
    if options.figure:
        write_atomically(options.figure, lambda p: plot(points, p))
    return 0


def write(path: Path, facts: dict[str, str | int], points: Sequence[Point]) -> None:
    """The points, and what they were measured with."""
    data: dict[str, Any] = {**facts, "points": [asdict(point) for point in points]}
    written = json.dumps(data, indent=1) + "\n"
    write_atomically(path, lambda p: p.write_text(written))


def points_in(out: Path | None, facts: dict[str, str | int]) -> dict[tuple[str, int], Point]:
    """What an earlier run with the same model and pictures has measured, by name and T."""
    if out is None or not out.with_suffix(".json").is_file():
        return {}
    data = json.loads(out.with_suffix(".json").read_text())
    points = [Point(**point) for point in data.pop("points")]
    return {(p.name, p.steps): p for p in points} if data == facts else {}


if __name__ == "__main__":
    sys.exit(main())
