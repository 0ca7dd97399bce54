"""The front: how near the walk comes back to the picture, against the UNet evaluations that it took.

    python benchmarks/front.py --out docs/front --figure docs/figures/front.png

All pictures go through in one batch: drawings that the model was not trained on, and photographs. What the batch
asks for pictures that need no further step is not counted, so a picture's evaluations are what it takes by itself.
A variant is a way of inverting; most are tried at several numbers of steps T. Writes OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from subjects import check_installed, drawn_pictures, photographs
from torch import Tensor
from torch.optim import Adam

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step, guide
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion import InversionSettings, ddim_invert, default_optimizer, optimise

EXACT = "exact length"
OPTIMIZERS = {
    "": default_optimizer,
    "Adam": partial(Adam, lr=0.01),
    "Adam, lr 0.1": partial(Adam, lr=0.1),
    EXACT: None,  # gradient steps of exact length, see below
}
STARTS = {1.0: "source", 0.5: "halfway", 0.0: "empty"}


@dataclass(frozen=True)
class Variant:
    """A way of inverting, at several T."""

    settings: InversionSettings
    steps: tuple[int, ...] = (20,)
    optimizer: str = ""  # one of OPTIMIZERS

    @property
    def name(self) -> str:
        """Where the null embeddings start, inner steps and tolerance, refinements of the pivot, optimiser."""
        s = self.settings
        words = [STARTS[s.start], f"N = {s.inner_steps}"]
        words += [f"tolerance {s.tolerance:.0e}"] if s.inner_steps and s.tolerance else []
        words += [f"pivot {s.fixed_point_iterations}", *filter(None, [self.optimizer])]
        default = s == InversionSettings() and not self.optimizer
        return ", ".join(words) + " (default)" * default


def _variants() -> Iterator[Variant]:
    every, source = (10, 20, 25, 50), InversionSettings()
    always = replace(source, tolerance=0.0)
    for k in (0, 1, 2):
        yield Variant(replace(source, inner_steps=0, fixed_point_iterations=k), every)
        yield Variant(replace(source, fixed_point_iterations=k), every)
    yield Variant(always, every)
    for n in (2, 10):
        yield Variant(replace(source, inner_steps=n))
        yield Variant(replace(always, inner_steps=n))
    yield Variant(source, every, "Adam")
    yield Variant(always, (10, 20), "Adam")
    yield Variant(source, (10, 20), EXACT)
    yield Variant(always, (10, 20), EXACT)
    for start in (0.5, 0.0):
        yield Variant(replace(always, start=start, inner_steps=0))
        for n in (1, 2, 10):
            yield Variant(replace(source, start=start, inner_steps=n))
            yield Variant(replace(always, start=start, inner_steps=n))
        yield Variant(replace(always, start=start), (20,), EXACT)
    for n in (1, 2):
        yield Variant(replace(always, start=0.0, inner_steps=n), (20,), "Adam, lr 0.1")


VARIANTS = tuple(_variants())


@dataclass(frozen=True)
class Point:
    """A variant at one T; evaluations are forwards and backwards a picture, the pivot's included."""

    name: str
    steps: int
    forwards: float
    backwards: float
    drawn: tuple[float, float]  # dB to the VAE reconstruction: mean, worst
    photographs: tuple[float, float]

    @property
    def evaluations(self) -> float:
        """Forwards and backwards."""
        return self.forwards + self.backwards


def exact_length(
    backbone: Backbone, schedule: Schedule, pivot: Tensor, cond: TextEmbedding, settings: InversionSettings
) -> Iterator[tuple[Tensor, int]]:
    """The guided walk under null embeddings that take one gradient step a timestep, as long as is best.

    The step wants eps_null to change by r. Along the gradient d = J^T r the noise changes by J d, which a forward a
    little way along d tells, and the best length is <r, J d> / <J d, J d>.

    Yields:
        The latents after each step (B, 4, h, w), and how many pictures waited while others took theirs.
    """
    w, z = settings.guidance_scale, pivot[0]
    empty = backbone.embed_prompt("").sequence
    start = null = torch.lerp(empty.expand_as(cond.sequence), cond.sequence, settings.start)
    for i in range(schedule.steps):
        t, a_from, a_to = schedule.timesteps[i], schedule.alpha_from[i], schedule.alpha_to[i]
        null = (null if settings.warm_start else start).detach().requires_grad_(True)
        same = torch.equal(null, cond.sequence)
        eps_null = backbone.predict_noise(z, t, cond.with_sequence(null))
        with torch.no_grad():
            eps_cond = eps_null.detach() if same else backbone.predict_noise(z, t, cond)
        z_next = ddim_step(z, guide(eps_null, eps_cond, w), a_from, a_to).detach()
        per_eps = (ddim_step(0 * z, 1 - 0 * z, a_from, a_to) * (1 - w)).mean()
        r = (pivot[i + 1] - z_next) / per_eps
        active = (pivot[i + 1] - z_next).square().mean(dim=(1, 2, 3)) >= settings.tolerance
        idle = int((~active).sum()) if active.any() else 0
        if active.any():
            (d,) = torch.autograd.grad((eps_null * r).sum(), null)
            longest = _dot(r, r) / _dot(d, d)  # by Cauchy and Schwarz
            probe = null + (0.1 * longest)[:, None, None] * d
            with torch.no_grad():
                moved = backbone.predict_noise(z, t, cond.with_sequence(probe)) - eps_null
                length = 0.1 * longest * _dot(r, moved) / _dot(moved, moved)
                length = torch.minimum(length.clamp(min=0), longest) * active
                null = null + length[:, None, None] * d
                eps_null = backbone.predict_noise(z, t, cond.with_sequence(null))
            z_next = ddim_step(z, guide(eps_null, eps_cond, w), a_from, a_to)
        z = z_next
        yield z, idle


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)


def walk(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
    optimizer: str,
) -> Tensor:
    """The latents z_0 where the guided walk ends; takes what the batch asked for waiting pictures off the counts."""
    make = OPTIMIZERS[optimizer]
    if make is None:
        latents, idle = zip(*exact_length(backbone, schedule, pivot, cond, settings), strict=True)
        z, waited, asked = latents[-1], sum(idle), 2
    else:
        records = [record for record, _ in optimise(backbone, schedule, pivot, cond, settings, make)]
        z, asked = records[-1].z, 1
        waited = sum(record.grad_norms.numel() - int(record.inner_steps.sum()) for record in records)
    backbone.forwards -= asked * waited
    backbone.backwards -= waited
    return z


def measure(
    backbone: Backbone, pixels: Tensor, prompts: Sequence[str], drawn: int, variants: Sequence[Variant]
) -> Iterator[Point]:
    """Variants at all their T, the pivots shared; the first ``drawn`` pictures are drawings."""
    z_0, cond = backbone.encode_image(pixels), backbone.embed_prompt(prompts)
    vae = backbone.decode_latents(z_0)
    pivots: dict[tuple[int, int], tuple[Tensor, int]] = {}
    for variant in variants:
        k = variant.settings.fixed_point_iterations
        for steps in variant.steps:
            print(f"measuring {variant.name}, T = {steps} ...", file=sys.stderr, flush=True)
            schedule, settings = backbone.schedule(steps), replace(variant.settings, steps=steps)
            backbone.forwards = backbone.backwards = 0
            if (steps, k) not in pivots:
                pivot = ddim_invert(backbone, schedule, z_0, cond, fixed_point_iterations=k)
                pivots[steps, k] = pivot, backbone.forwards
            pivot, backbone.forwards = pivots[steps, k]
            z = walk(backbone, schedule, pivot, cond, settings, variant.optimizer)
            mse = (backbone.decode_latents(z) - vae).square().mean(dim=(1, 2, 3)) / 4  # pixels span 2
            psnr = (-10 * mse.log10()).tolist()
            found = [(sum(x) / len(x), min(x)) for x in (psnr[:drawn], psnr[drawn:])]
            n = len(z_0)
            yield Point(variant.name, steps, backbone.forwards / n, backbone.backwards / n, *found)


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
        "| drawn, dB: mean (worst) | photographs |",
        "|---|---|---|---|---|---|---|",
    ]
    fronts = {kind: front_of(points, kind) for kind in ("drawn", "photographs")}
    for p in points:
        cells = [p.name, *(f"{n:.0f}" for n in (p.steps, p.forwards, p.backwards, p.evaluations))]
        for kind, front in fronts.items():
            mean, worst = getattr(p, kind)
            cells.append(f"**{mean:.1f}** ({worst:.1f})" if p in front else f"{mean:.1f} ({worst:.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """PSNR against evaluations: a colour for where the embeddings start, a marker a variant, a line for the front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    names = list(dict.fromkeys(p.name for p in points))
    starts = list(dict.fromkeys(name.split(",")[0] for name in names))
    for axis, kind in zip(axes, ("drawn", "photographs"), strict=True):
        for k, name in enumerate(names):
            mine = [p for p in points if p.name == name]
            means = [getattr(p, kind)[0] for p in mine]
            colour, marker = f"C{starts.index(name.split(',')[0])}", "os^Dv<>pP*Xhd8"[k % 14]
            evaluations = [p.evaluations for p in mine]
            axis.plot(evaluations, means, marker=marker, markersize=5, lw=0.6, color=colour, label=name)
        front = front_of(points, kind)
        x, y = [p.evaluations for p in front], [getattr(p, kind)[0] for p in front]
        axis.step(x, y, where="post", color="0.4", lw=1.5, zorder=0, label="the front")
        axis.set(title=kind, xlabel="UNet evaluations a picture", xscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR to the VAE reconstruction, dB")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=6)
    figure.tight_layout(rect=(0, 0, 0.77, 1))
    figure.savefig(path, format="png", dpi=150)


def reference_point(drawn: Path, photographs: Path) -> Point:
    """The reference's point, from the JSON that ``speed.py`` wrote of drawings and of photographs."""
    rows = []
    for path in (drawn, photographs):
        methods = json.loads(path.read_text())["methods"]
        rows.append(next(m for m in methods if m["method"] == "reference"))
    counts = [sum(rows[0][key]) / len(rows[0][key]) for key in ("forwards", "backwards")]
    psnr = [(sum(row["psnr"]) / len(row["psnr"]), min(row["psnr"])) for row in rows]
    return Point("reference (paper)", 50, *counts, *psnr)


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
    points = list(measure(backbone, pixels, prompts, options.pictures, variants))
    if options.reference:
        points.append(reference_point(*options.reference))
    text = f"{options.pictures} drawings, {len(pictures) - options.pictures} photographs, model {options.model}.\n\n"
    text += table(points) + "\n"
    print(text)
    if options.out:
        data: list[dict[str, Any]] = [asdict(point) for point in points]
        written = json.dumps(data, indent=1) + "\n"
        write_atomically(options.out.with_suffix(".md"), lambda p: p.write_text(text))
        write_atomically(options.out.with_suffix(".json"), lambda p: p.write_text(written))
    if options.figure:
        write_atomically(options.figure, lambda p: plot(points, p))
    return 0


if __name__ == "__main__":
    sys.exit(main())
