"""What null-text inversion learns, in two figures side by side.

    python benchmarks/learning.py sheep.jpg --methods default paper --figure docs/figures/learning.png

The loss of one timestep over its inner steps, and the residual of every timestep before and after them. The residual
is the share of guidance that leads away from the pivot: the distance of the guided step to the pivot, divided by how
far guidance under the empty prompt moves that step. From the empty prompt it starts near 1, and grows where the
trajectory has left the pivot; it is 0 where guidance cancels out. At the last timestep guidance moves next to nothing.
Prints the numbers of both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import in_one_line, options_of, publish
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
    # of each timestep the loss before each inner step, then at the end
    losses: list[list[float]] = field(default_factory=list)
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
    state, found = method.begin(model, z_0, cond), Learned(title.replace("`", ""))
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


def draw(curves: Sequence[Learned], path: Path) -> None:
    """Both figures side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss, residual = figure.subplots(1, 2)
    for k, curve in enumerate(curves):
        i, colour, title = curve.best(), f"C{k}", curve.title
        loss.plot(curve.losses[i], "-o", color=colour, label=f"{title}: t = {curve.timesteps[i]:.0f}")
        residual.plot(curve.timesteps, curve.before, "--", color=colour, label=f"{title}: before inner steps")
        residual.plot(curve.timesteps, curve.after, "-o", color=colour, markersize=3, label="after them")
    loss.set(title="one timestep", xlabel="inner step", ylabel="loss: mean squared distance to the pivot")
    residual.set(title="all timesteps", xlabel="t, from noise to picture", ylabel="residual of guidance")
    residual.invert_xaxis()
    for axes in (loss, residual):
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
    text = ""
    for curve in curves:
        i = curve.best()
        losses = ", ".join(f"{x:.1e}" for x in curve.losses[i])
        text += f"{curve.title}, t = {curve.timesteps[i]:.0f}: loss {losses}\n"
        for t, before, after in zip(curve.timesteps, curve.before, curve.after, strict=True):
            text += f"  t = {t:.0f}: residual {before:.3f} before, {after:.3f} after\n"
    publish(text, list(map(asdict, curves)), options.out)
    if options.figure:
        draw(curves, options.figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it."""
    parser = options_of(__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--prompt", help="what it shows; by default what the picture's file says")
    names = [name for name in METHODS if name != REFERENCE]
    parser.add_argument("--methods", nargs="+", choices=names, default=["default", "paper"])
    parser.add_argument("--figure", type=Path, help="a PNG")
    return in_one_line(partial(work, parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
