"""Edits whose true answer is known: changes of drawn scenes, by several ways of editing.

    python benchmarks/edits.py --changes single --scenes 60                    # a random change of each scene
    python benchmarks/edits.py --changes double --scenes 40 --model farmyard-flow
    python benchmarks/edits.py --changes single --scenes 40 --ways nulls       # what the null text does for edits

A scene of the farmyard is drawn, inverted and edited; its true picture is the same scene drawn with the change. Of each
way and change, means over the scenes:

    accuracy    CLIP accuracy: the shipped CLIP reads the changed attribute as the target has it; higher is better
    background  PSNR in dB to the source picture, outside the change
    truth       PSNR in dB to the true picture
    inside      PSNR in dB to the true picture, inside the change
    cost        evaluations of the network for an edit, without the inversion
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from measuring import in_one_line, options_of, publish
from methods import METHODS
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.editing import Edit, edit
from nulltext.farmyard import world as farm
from nulltext.farmyard.recipe.figures.reading import Reader
from nulltext.farmyard.world import Scene, caption, changed_pixels, draw
from nulltext.inversion.invert import invert
from nulltext.metrics.networks import ClipScorer
from nulltext.metrics.pixel import psnr
from nulltext.models import DiffusionModel
from nulltext.models.shipped import PRETRAINED
from nulltext.pixels import as_saved, from_image, from_unit, save_png, to_image
from nulltext.plots import grid

FIRST_SEED = farm.HELD_OUT_SEEDS.start + 700_000
SIX: dict[str, dict[str, str]] = {
    "sheep to horse": {"animal": "horse"},
    "sheep to chicken": {"animal": "chicken"},
    "sheep to elk": {"animal": "elk"},
    "add a red hat": {"hat": "red hat"},
    "white to black": {"colour": "black"},
    "meadow to snow": {"place": "snow"},
}


@dataclass(frozen=True)
class Way:
    """A way of editing: data."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of an Edit
    inversion: str = "default"  # one of METHODS
    replay: str | None = None  # the method that reproduces the source; None: that of the inversion


PLAIN = {"kind": "plain", "local_blend": None}
PROMPT_TO_PROMPT = {"cross_replace": 0.4, "self_replace": 0.4, "local_blend": None}
NULLS = {
    "learned": Way({"null": "learned"}),
    "learned by `paper`": Way({"null": "learned"}, "paper"),
    "source prompt": Way({"null": "learned"}, replay="negative_prompt"),
    "empty": Way({"null": "empty"}),
}
TRUTH = "the true picture, through the VAE"
EDITS: dict[str, Way] = {
    TRUTH: Way(),
    "plain": Way(PLAIN),
    "Prompt-to-Prompt": Way(PROMPT_TO_PROMPT),
    "Prompt-to-Prompt, mask found, pixels kept (without a judge)": Way({"judge": "none"}),
    "the default, judged": Way(),
}
WAYS: dict[str, Way] = {
    **EDITS,
    **{
        f"{kind}, null text {name}": Way({**options, **null.options}, null.inversion, null.replay)
        for kind, options in (("plain", PLAIN), ("Prompt-to-Prompt", PROMPT_TO_PROMPT))
        for name, null in NULLS.items()
    },
}
GROUPS = {"all": list(WAYS), "edits": list(EDITS), "nulls": [name for name in WAYS if name not in EDITS]}
COLUMNS = ("accuracy", "background", "truth", "inside", "cost")


class Change(NamedTuple):
    """A scene after a change."""

    name: str
    after: Scene


Changes: TypeAlias = Sequence[Change]
Ways: TypeAlias = Mapping[str, Way]


def scenes(changes: str, number: int, seed: int = 0) -> Iterator[tuple[Scene, Changes]]:
    """Scenes and their changes.

    Six: white sheep without a hat on a meadow; what is behind them, style, light and place vary. Single, double: random
    scenes, each with one or two random changes, of the farmyard benchmark's kinds but the style, in turn.
    """
    if changes == "six":
        for k in range(number):
            fixed = {"animal": "sheep", "colour": "white", "hat": None, "place": "meadow"}
            before = farm.replace(farm.random_scene(FIRST_SEED + k), **fixed)
            yield before, [Change(name, farm.replace(before, **fields)) for name, fields in SIX.items()]
        return
    from nulltext.farmyard.recipe.benchmark import EDIT_TYPES

    double, *singles, _ = EDIT_TYPES
    for k in range(number):
        name, _, make = double if changes == "double" else singles[k % len(singles)]
        scene_seed = FIRST_SEED + 10_000 + 1_000 * seed + k
        one = make(farm.SHIPPED, farm.random_scene(scene_seed), random.Random(scene_seed))
        yield one.before, [Change("two changes" if changes == "double" else name[2:], one.after)]


def accuracy(read: Mapping[str, Sequence[Any]], k: int, before: Scene, after: Scene) -> float:
    """1 if every attribute that changed is read as it is after, else 0; NaN where none of them can be read."""
    changed = [name for name in read if getattr(before, name) != getattr(after, name)]
    return float(all(read[name][k] == getattr(after, name) for name in changed)) if changed else float("nan")


class Bench:
    """A model that knows the farmyard, and the CLIP that reads its pictures."""

    def __init__(self, pretrained: str, clip: str, device: str = "cpu") -> None:
        self.model = DiffusionModel.from_pretrained(pretrained, device=device)
        self.scorer = ClipScorer.from_pretrained(clip)
        self.reader = Reader(farm.SHIPPED, self.scorer.text_features)

    def drawn(self, scene: Scene) -> Tensor:
        """A scene's pixels (3, S, S) in [-1, 1]."""
        return from_image(draw(scene, self.model.default_size))

    def measure(self, before: Scene, changes: Changes, ways: Ways) -> tuple[list[Any], dict[str, Any]]:
        """A row of numbers for each way and change, and each way's pictures (3, S, S) in [0, 1]."""
        pixels, inversions, rows, pictures = self.drawn(before), {}, [], {}
        picture = Picture(pixels, caption(before), str(before.seed), crop="none")
        for name, way in ways.items():
            if way.inversion not in inversions:
                flow = way.inversion == "default" and self.model.kind == "flow"
                method = METHODS["flow" if flow else way.inversion].method
                inversions[way.inversion] = invert(self.model, picture, None, method)
            source, self.model.forwards = inversions[way.inversion], 0
            wanted = [Edit(caption(change.after), **way.options) for change in changes]
            if name == TRUTH:
                true = torch.stack([self.drawn(scene) for scene in (before, *(c.after for c in changes))])
                made = as_saved(self.model.decode(self.model.encode(true)).cpu())
            else:
                edited = edit(self.model, source, wanted, method=way.replay, original=pixels, batch_size=16)
                all_pictures = (edited.reconstruction, *(result.picture for result in edited.results))
                made = as_saved(torch.stack([x.cpu() for x in all_pictures]))
            pictures[name], cost = list(made), self.model.forwards / len(changes)
            for k, change in enumerate(changes):
                found = {**self.scored(before, change, made[1:], k), "cost": cost}
                rows.append({"way": name, "change": change.name, "scene": before.seed, **found})
        return rows, pictures

    def scored(self, before: Scene, change: Change, made: Tensor, k: int) -> dict[str, float]:
        """The columns for picture k of several (B, 3, S, S) in [0, 1]."""
        read = self.reader.read(self.scorer.image_features(made))
        source, truth = (as_saved(self.drawn(scene))[None] for scene in (before, change.after))
        where = torch.from_numpy(changed_pixels(before, change.after, made.shape[-1])).float()[None, None]
        one = made[k : k + 1]
        values = (psnr(one, source, 1 - where), psnr(one, truth), psnr(one, truth, where))
        return dict(
            zip(COLUMNS[:-1], (accuracy(read, k, before, change.after), *map(float, values)), strict=True)
        )

    def figure(self, before: Scene, changes: Changes, pictures: Mapping[str, Any], path: Path) -> None:
        """Rows of ways, columns of changes, and above them the truth."""
        truth = [as_saved(self.drawn(scene)) for scene in (before, *(change.after for change in changes))]
        flat = [to_image(from_unit(picture)) for row in (truth, *pictures.values()) for picture in row]
        columns = ["the picture", *(change.name for change in changes)]
        save_png(path, grid(caption(before), ["the truth", *pictures], columns, flat))


def table(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """Means as Markdown: for each way a cell for each change and one for all."""
    ways, changes = dict.fromkeys(r["way"] for r in rows), dict.fromkeys(r["change"] for r in rows)
    lines = [f"`{command}`; CLIP accuracy / PSNR in dB: background / truth / inside / cost", ""]
    lines += ["| | " + " | ".join([*changes, "all"]) + " |", "|---" * (len(changes) + 2) + "|"]
    for way in ways:
        cells = []
        for change in [*changes, None]:
            mine = [r for r in rows if r["way"] == way and change in (None, r["change"])]
            read = [r["accuracy"] for r in mine if not np.isnan(r["accuracy"])]
            decibels = (np.nanmean([r[column] for r in mine]) for column in COLUMNS[1:])
            cells.append(f"{np.mean(read):.0%}" if read else "-")
            cells[-1] += " / " + " / ".join(f"{value:.1f}" for value in decibels)
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def work(options: argparse.Namespace, command: str) -> None:
    """Measures, prints, writes."""
    names = GROUPS.get(options.ways) or [list(WAYS)[int(k)] for k in options.ways.split(",")]
    ways, bench = {name: WAYS[name] for name in names}, Bench(options.model, options.clip, options.device)
    rows = list[dict[str, Any]]()
    for k, (before, changes) in enumerate(scenes(options.changes, options.scenes, options.seed)):
        made, pictures = bench.measure(before, changes, ways)
        rows += made
        if options.figure and k == 0:
            bench.figure(before, changes, pictures, options.figure)
    facts = {"command": command, "ways": {name: asdict(way) for name, way in ways.items()}, "rows": rows}
    publish(table(rows, command), facts, options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = options_of(__doc__)
    parser.add_argument("--clip", default=str(PRETRAINED / "clip"), help="the CLIP that reads")
    parser.add_argument("--changes", choices=("six", "single", "double"), default="six")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--ways", default="edits", help=f"{', '.join(GROUPS)}, or numbers with commas")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--figure", type=Path, help="a PNG of the first scene")
    warnings.simplefilter("ignore")
    command = " ".join(["python benchmarks/edits.py", *arguments])
    return in_one_line(partial(work, parser.parse_args(arguments), command))


if __name__ == "__main__":
    sys.exit(main())
