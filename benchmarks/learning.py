"""What null-text inversion learns, in two figures.

    python benchmarks/learning.py sheep.jpg --methods default paper --out docs/figures/learning

OUT-loss.png has the loss of one timestep over its inner steps, OUT-residual.png the residual of every timestep before
and after them. The residual is the share of guidance that leads away from the pivot: the distance of the guided step
to the pivot, divided by how far guidance under the empty prompt moves that step. From the empty prompt it starts near
1; it is 0 where guidance cancels out. Prints the numbers of both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import in_one_line, options_of
from methods import METHODS, REFERENCE
from torch import Tensor

from nulltext.data.frame import Frame
from nulltext.data.picture import read_picture
from nulltext.diffusion import step
from nulltext.files import write_atomically
from nulltext.inversion import InversionMethod, State, StepRecord
from nulltext.models import DiffusionModel


@dataclass
class Learned:
    """The curves of one inversion."""

    title: str
    timesteps: list[float] = field(default_factory=list)  # what the network is told, noisiest first
    losses: list[list[float]] = field(
        default_factory=list
    )  # of each timestep: before each inner step, then at the end
    before: list[float] = field(default_factory=list)  # the residual before the first inner step
    after: list[float] = field(default_factory=list)  # and at the end

    def best(self) -> int:
        """The step whose loss its inner steps reduced by the largest factor."""
        factors = [losses[0] / max(losses[-1], 1e-30) for losses in self.losses]
        return max(range(len(factors)), key=factors.__getitem__)


@torch.no_grad()
def learn(model: DiffusionModel, z_0: Tensor, prompt: str, method: InversionMethod, title: str) -> Learned:
    """Inverts the latents (1, C, h, w) of a picture and notes the loss."""
    cond, empty = model.embed(prompt), model.embed("")
    state, found = method.begin(model, z_0, cond), Learned(title)
    for i in range(state.schedule.steps):
        moves = _guidance(model, state, i, empty) * abs(method.guidance_scale - 1)
        record = method.step(model, state, i)
        losses = _losses(record, state.pivot[i + 1])
        found.timesteps.append(float(state.schedule.t[i]))
        found.losses.append(losses)
        found.before.append(losses[0] ** 0.5 / moves)
        found.after.append(losses[-1] ** 0.5 / moves)
    return found


def _guidance(model: DiffusionModel, state: State, i: int, empty: Any) -> float:
    """How far the conditional step is from that under the empty prompt, root mean square over the latents."""
    there = state.schedule.there(i)
    steps = [step(model.predict(state.z, state.schedule, i, text), there) for text in (state.cond, empty)]
    return float((steps[0] - steps[1]).square().mean().sqrt())


def _losses(record: StepRecord, target: Tensor) -> list[float]:
    """The loss before each inner step, and of the step that was taken."""
    taken = int(record.inner_steps[0])
    end = float((record.z - target).square().mean())
    return [*record.losses[: max(taken, 1), 0].tolist(), end] if len(record.losses) else [end, end]


def plot_loss(axes: Any, curves: Sequence[Learned]) -> None:
    """The loss of one timestep of each method over its inner steps."""
    axes.set(xlabel="inner step", ylabel="loss: mean squared distance to the pivot")
    for curve in curves:
        i = curve.best()
        axes.plot(curve.losses[i], "-o", markersize=4, label=f"{curve.title}: t = {curve.timesteps[i]:.0f}")


def plot_residual(axes: Any, curves: Sequence[Learned]) -> None:
    """The residual of every timestep, dashed before its inner steps, solid after."""
    axes.set(
        xlabel="timestep t, from noise to picture", ylabel="residual: the share of guidance that leads away"
    )
    for k, curve in enumerate(curves):
        axes.plot(
            curve.timesteps, curve.before, "--", color=f"C{k}", label=f"{curve.title}: before inner steps"
        )
        axes.plot(curve.timesteps, curve.after, "-o", color=f"C{k}", markersize=3, label="after them")
    axes.invert_xaxis()


def draw(plot: Callable[[Any, Sequence[Learned]], None], curves: Sequence[Learned], path: Path) -> None:
    """One figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    plot(axes, curves)
    axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_atomically(path, lambda p: figure.savefig(p, format="png", dpi=130))


def work(options: argparse.Namespace) -> None:
    """Inverts, prints, draws."""
    model = DiffusionModel.from_pretrained(options.model, device=options.device)
    frame = Frame(size=model.default_size, multiple=model.size_multiple)
    picture = read_picture(options.picture, frame, prompt=options.prompt)
    z_0 = model.encode(picture.pixels[None])
    curves = [learn(model, z_0, picture.prompt, METHODS[n].method, METHODS[n].title) for n in options.methods]
    for curve in curves:
        i = curve.best()
        print(
            f"{curve.title}, t = {curve.timesteps[i]:.0f}: loss "
            + ", ".join(f"{x:.1e}" for x in curve.losses[i])
        )
        for t, before, after in zip(curve.timesteps, curve.before, curve.after, strict=True):
            print(f"  t = {t:.0f}: residual {before:.3f} before, {after:.3f} after")
    for name, plot in (("loss", plot_loss), ("residual", plot_residual)):
        draw(plot, curves, options.out.with_name(f"{options.out.name}-{name}.png"))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it."""
    parser = options_of(__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--prompt", help="what it shows; by default what the picture's file says")
    names = [name for name in METHODS if name != REFERENCE]
    parser.add_argument("--methods", nargs="+", choices=names, default=["default", "paper"])
    parser.set_defaults(out=Path("learning"))
    return in_one_line(partial(work, parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
