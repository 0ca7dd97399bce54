"""The front: how near the walk comes back to the picture, against the UNet evaluations that it took.

    python benchmarks/front.py --out docs/front

All pictures go through in one batch: drawings that the model was not trained on, and photographs. A variant is
a way of inverting; most are tried at several numbers of steps T. Writes OUT.md, OUT.json and OUT.svg.
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
from subjects import drawn_pictures, photographs
from torch import Tensor
from torch.optim import Adam

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step, guide
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion import InversionSettings, ddim_invert, optimise

NONE = InversionSettings(inner_steps=0, tolerance=0.0)  # from the source prompt, nothing optimised
ALWAYS = InversionSettings(inner_steps=1, tolerance=0.0)  # one step in every timestep
EMPTY = InversionSettings(start=0.0, tolerance=0.0)


@dataclass(frozen=True)
class Variant:
    """A way of inverting, at several T."""

    name: str
    settings: InversionSettings
    steps: tuple[int, ...] = (20,)
    learning_rate: float = 0.01
    exact: bool = False  # gradient steps of exact length instead of Adam's


VARIANTS = (
    Variant("source, no step, plain pivot", replace(NONE, fixed_point_iterations=0), (10, 20, 50)),
    Variant("source, no step, pivot refined once", NONE, (10, 20, 25, 50)),
    Variant("source, no step, pivot refined twice", replace(NONE, fixed_point_iterations=2), (10, 20)),
    Variant("source, a step where needed (default)", InversionSettings(), (10, 20, 25)),
    Variant("source, a step where needed, exact length", InversionSettings(), (10, 20), exact=True),
    Variant("source, always a step", ALWAYS, (10, 20)),
    Variant("source, always a step, exact length", ALWAYS, (10, 20), exact=True),
    Variant("halfway, N = 1", replace(EMPTY, start=0.5), (20,)),
    Variant("halfway, N = 2", replace(EMPTY, start=0.5, inner_steps=2), (20,)),
    Variant("halfway, N = 1, exact length", replace(EMPTY, start=0.5), (20,), exact=True),
    Variant("empty, no step (DDIM)", replace(EMPTY, inner_steps=0), (20,)),
    Variant("empty, N = 1", EMPTY, (20,)),
    Variant("empty, N = 1, lr 0.1", EMPTY, (20, 50), learning_rate=0.1),
    Variant("empty, N = 2, lr 0.1", replace(EMPTY, inner_steps=2), (20,), learning_rate=0.1),
    Variant("empty, N = 1, exact length", EMPTY, (20, 50), exact=True),
)


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
) -> Iterator[Tensor]:
    """The guided walk under null embeddings that take one gradient step a timestep, as long as is best.

    The step wants eps_null to change by r. Along the gradient d = J^T r the noise changes by J d, which a forward a
    little way along d tells, and the best length is <r, J d> / <J d, J d>.

    Yields:
        The latents after each step (B, 4, h, w).
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
        yield z


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)


def measure(backbone: Backbone, pixels: Tensor, prompts: Sequence[str], drawn: int) -> Iterator[Point]:
    """All variants at all their T, the pivots shared."""
    z_0, cond = backbone.encode_image(pixels), backbone.embed_prompt(prompts)
    vae = backbone.decode_latents(z_0)
    pivots: dict[tuple[int, int], tuple[Tensor, int]] = {}
    for variant in VARIANTS:
        k = variant.settings.fixed_point_iterations
        for steps in variant.steps:
            schedule, settings = backbone.schedule(steps), replace(variant.settings, steps=steps)
            backbone.forwards = backbone.backwards = 0
            if (steps, k) not in pivots:
                pivot = ddim_invert(backbone, schedule, z_0, cond, fixed_point_iterations=k)
                pivots[steps, k] = pivot, backbone.forwards
            pivot, backbone.forwards = pivots[steps, k]
            if variant.exact:
                *_, z = exact_length(backbone, schedule, pivot, cond, settings)
            else:
                adam = partial(Adam, lr=variant.learning_rate)
                *_, (record, _) = optimise(backbone, schedule, pivot, cond, settings, adam)
                z = record.z
            mse = (backbone.decode_latents(z) - vae).square().mean(dim=(1, 2, 3)) / 4  # pixels span 2
            psnr = (-10 * mse.log10()).tolist()
            found = [(sum(x) / len(x), min(x)) for x in (psnr[:drawn], psnr[drawn:])]
            n = len(z_0)
            yield Point(variant.name, steps, backbone.forwards / n, backbone.backwards / n, *found)


def table(points: Sequence[Point]) -> str:
    """The points as a Markdown table."""
    lines = [
        "| start, steps, pivot | T | forwards | backwards | evaluations | drawn, dB: mean (worst) | photographs |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in points:
        psnr = " | ".join(f"{mean:.1f} ({worst:.1f})" for mean, worst in (p.drawn, p.photographs))
        counts = f"{p.forwards:.0f} | {p.backwards:.0f} | {p.evaluations:.0f}"
        lines.append(f"| {p.name} | {p.steps} | {counts} | {psnr} |")
    return "\n".join(lines)


def plot(points: Sequence[Point], path: Path) -> None:
    """PSNR against evaluations, one line a variant: drawings on the left, photographs on the right."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharex=True, sharey=True)
    names = list(dict.fromkeys(p.name for p in points))
    for axis, kind in zip(axes, ("drawn", "photographs"), strict=True):
        for k, name in enumerate(names):
            mine = [p for p in points if p.name == name]
            means = [getattr(p, kind)[0] for p in mine]
            marker = "os^Dv"[k // 10 % 5]
            axis.plot([p.evaluations for p in mine], means, marker=marker, color=f"C{k % 10}", label=name)
        axis.set(title=kind, xlabel="UNet evaluations a picture", xscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR to the VAE reconstruction, dB")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    figure.tight_layout(rect=(0, 0, 0.74, 1))
    figure.savefig(path, format="svg")
    plt.close(figure)


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
    parser.add_argument("--out", type=Path, help="write OUT.md, OUT.json and OUT.svg as well")
    options = parser.parse_args(argv)
    try:
        backbone = Backbone.from_pretrained(options.model, device=options.device)
    except UserError as error:
        print(f"front: error: {error}", file=sys.stderr)
        return 2
    size = backbone.default_size
    pictures = [*drawn_pictures(options.pictures, size), *photographs(size)]
    pixels, prompts = torch.stack([p for p, _ in pictures]), [prompt for _, prompt in pictures]
    points = list(measure(backbone, pixels, prompts, options.pictures))
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
        write_atomically(options.out.with_suffix(".svg"), lambda p: plot(points, p))
    return 0


if __name__ == "__main__":
    sys.exit(main())
