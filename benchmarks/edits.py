"""Edits whose true answer is known: six changes of drawn scenes, by several ways of editing.

    python benchmarks/edits.py --scenes 32 --out docs/edits --figure docs/figures/edits.png

A scene of the farmyard is drawn, inverted and edited; the counterfactual is the same scene drawn with the change.
Of each way and change, means over the scenes:

    reads       the shipped CLIP reads the changed attribute as the target has it (zero-shot, share of scenes)
    background  PSNR against the source picture, over the pixels that the change leaves alone, dB
    answer      PSNR against the counterfactual, whole picture, dB
    inside      PSNR against the counterfactual, over the pixels that change, dB

Writes OUT.md and OUT.json, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import DEFAULT, PAPER, PAPER_OPTIMIZER
from torch import Tensor

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone
from nulltext.editing import edit
from nulltext.editing_options import Edit
from nulltext.errors import UserError
from nulltext.farmyard import world as farm
from nulltext.farmyard.recipe.figures.reading import Reader
from nulltext.farmyard.world import Scene, caption, changed_pixels, draw
from nulltext.files import write_atomically
from nulltext.inversion import invert
from nulltext.inversion_settings import default_optimizer
from nulltext.metrics import psnr, psnr_over
from nulltext.pictures import Picture, to_image, to_pixels
from nulltext.scorers import ClipScorer

FIRST_SEED = farm.HELD_OUT_SEEDS.start + 700_000
CHANGES: dict[str, dict[str, str]] = {
    "sheep to horse": {"animal": "horse"},
    "sheep to chicken": {"animal": "chicken"},
    "sheep to elk": {"animal": "elk"},
    "add a red hat": {"hat": "red hat"},
    "white to black": {"colour": "black"},
    "meadow to snow": {"place": "snow"},
}
CONTROLLED = {"cross_replace": 0.4, "self_replace": 0.4}
WAYS: dict[str, dict[str, Any]] = {
    "plain (the slides)": {"kind": "plain", "local_blend": None, "detail_steps": 0},
    "replace or refine": {"local_blend": None, "detail_steps": 0},
    "plain, mask found, learned null": {"kind": "plain", "null": "learned", "keep_pixels": False},
    "plain, mask found": {"kind": "plain", "keep_pixels": False},
    "replace or refine, mask found": {**CONTROLLED, "keep_pixels": False},
    "replace or refine, mask found, pixels kept": CONTROLLED,
    "plain, mask found, pixels kept (default)": {},
    "the default at w = 3": {"guidance_scale": 3.0},
    "the default at w = 1": {"guidance_scale": 1.0},
    "the default from the source's own noise": {"detail_steps": 0},
    "plain from calmer detail": {"kind": "plain", "local_blend": None},
    "replace or refine from calmer detail (default without a mask)": {"local_blend": None},
}
RECIPES = {"default": (DEFAULT, default_optimizer), "paper": (PAPER, PAPER_OPTIMIZER)}
"""How the scenes are inverted."""
COLUMNS = ("reads", "background", "answer", "inside")


@dataclass(frozen=True)
class Source:
    """A scene, inverted."""

    scene: Scene
    pixels: Tensor  # (3, H, W) in [-1, 1]
    inversion: Inversion


def scenes(number: int) -> list[Scene]:
    """White sheep without a hat on a meadow; what stands behind them, style, light and place vary."""
    drawn = [farm.random_scene(FIRST_SEED + k) for k in range(number)]
    return [farm.replace(s, animal="sheep", colour="white", hat=None, place="meadow") for s in drawn]


def inverted(backbone: Backbone, scene: Scene, recipe: str = "default") -> Source:
    """Draws a scene and inverts it with the default settings, or those of configs/paper.yaml."""
    pixels = to_pixels(draw(scene, backbone.default_size))
    size = (pixels.shape[1], pixels.shape[2])
    picture = Picture(pixels=pixels, prompt=caption(scene), name=str(scene.seed), size=size, crop="none")
    settings, optimizer = RECIPES[recipe]
    return Source(scene, pixels, invert(backbone, picture, settings=settings, optimizer=optimizer))


def edits_of(source: Source, ways: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, Scene, Edit]]:
    """(way, change, the counterfactual's scene, the edit) for each way and change."""
    wanted = []
    for change, fields in CHANGES.items():
        after = farm.replace(source.scene, **fields)
        wanted += [(way, change, after, Edit(caption(after), **options)) for way, options in ways.items()]
    return wanted


def measure(
    backbone: Backbone,
    source: Source,
    ways: Mapping[str, Mapping[str, Any]],
    scorer: ClipScorer,
    reader: Reader,
) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """The figures of all edits of a scene, and the pictures (3, H, W) in [0, 1]: source, reconstruction, edits."""
    wanted = edits_of(source, ways)
    edited = edit(
        backbone, source.inversion, [one[3] for one in wanted], original=source.pixels, batch_size=16
    )
    pictures = torch.stack([as_seen(r.picture) for r in edited.results])
    reads = reader.read(scorer.image_features(pictures))
    first = [as_seen(source.pixels), as_seen(edited.reconstruction.cpu())]
    rows = []
    for k, (way, change, after, _) in enumerate(wanted):
        (field, word), *_ = CHANGES[change].items()
        where = torch.from_numpy(changed_pixels(source.scene, after, pictures.shape[-1])).float()[None, None]
        answer = as_seen(to_pixels(draw(after, pictures.shape[-1])))[None]
        mask = edited.results[k].mask
        rows.append(
            {
                "way": way,
                "change": change,
                "scene": source.scene.seed,
                "reads": float(reads[field][k] == word),
                "background": float(psnr_over(pictures[k : k + 1], first[0][None], 1 - where)),
                "answer": float(psnr(pictures[k : k + 1], answer)),
                "inside": float(psnr_over(pictures[k : k + 1], answer, where)),
                "reconstruction_background": float(psnr_over(first[1][None], first[0][None], 1 - where)),
                "reconstruction_inside": float(psnr_over(first[1][None], answer, where)),
                "bound_answer": float(psnr(vae_of(backbone, answer), answer)),
                "masked_share": None if mask is None else float(mask.mean()),
                "changed_share": float(where.mean()),
            }
        )
    return rows, [*first, *pictures]


def as_seen(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as a picture file holds them, in [0, 1]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round() / 255


def vae_of(backbone: Backbone, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] through the VAE: the most that any edit could reach."""
    return as_seen(backbone.decode_latents(backbone.encode_image(pictures * 2 - 1)))


def table(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """Means as markdown: for each way a line a change and one for all."""
    ways, changes = dict.fromkeys(r["way"] for r in rows), dict.fromkeys(r["change"] for r in rows)
    number = len({r["scene"] for r in rows})
    lines = [f"`{command}`, {number} scenes; reads / background / answer / inside", ""]
    lines += ["| | " + " | ".join([*changes, "all"]) + " |", "|---" * (len(changes) + 2) + "|"]
    for way in ways:
        cells = []
        for change in [*changes, None]:
            mine = [r for r in rows if r["way"] == way and change in (None, r["change"])]
            reads, *decibels = (np.mean([r[column] for r in mine]) for column in COLUMNS)
            cells.append(f"{reads:.0%} / " + " / ".join(f"{value:.1f}" for value in decibels))
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    kept, inside, bound = (
        np.mean([r[key] for r in rows])
        for key in ("reconstruction_background", "reconstruction_inside", "bound_answer")
    )
    lines += ["", f"The unedited reconstruction: background {kept:.1f} dB, inside {inside:.1f} dB."]
    lines.append(f"The counterfactuals themselves through the VAE: answer {bound:.1f} dB.")
    return "\n".join(lines) + "\n"


def figure(pictures: Sequence[Tensor], source: Scene, ways: Sequence[str], path: Path) -> None:
    """Rows of ways, columns of changes, and above them the truth."""
    from nulltext.editing_figures import grid

    answers = [
        as_seen(to_pixels(draw(farm.replace(source, **c), pictures[0].shape[-1]))) for c in CHANGES.values()
    ]
    edits = torch.stack(list(pictures[2:])).unflatten(0, (len(CHANGES), len(ways)))  # (change, way, 3, H, W)
    rows = [[pictures[0], *answers], *([pictures[1], *edits[:, k]] for k in range(len(ways)))]
    flat = [to_image(picture * 2 - 1) for row in rows for picture in row]
    sheet = grid(caption(source), ["the truth", *ways], ["the picture", *CHANGES], flat)
    write_atomically(path, lambda p: sheet.save(p, "PNG"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="farmyard", help="a model that knows the farmyard")
    parser.add_argument("--clip", default="farmyard", help="the CLIP that reads")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument(
        "--inversion", choices=list(RECIPES), default="default", help="settings of the inversion"
    )
    parser.add_argument(
        "--ways", default=",".join(map(str, range(len(WAYS)))), help="numbers of ways, with commas"
    )
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    parser.add_argument("--figure", type=Path, help="a PNG of the scene numbered --figure_scene")
    parser.add_argument("--figure_scene", type=int, default=0)
    options = parser.parse_args(arguments)
    names = list(WAYS)
    ways = {names[int(k)]: WAYS[names[int(k)]] for k in options.ways.split(",")}
    warnings.simplefilter("ignore")
    try:
        backbone = Backbone.from_pretrained(options.model)
        scorer = ClipScorer.from_pretrained(options.clip)
    except (UserError, OSError) as error:
        print(f"edits: error: {error}", file=sys.stderr)
        return 2
    reader, rows, begun = Reader(farm.SHIPPED, scorer.text_features), [], time.perf_counter()
    for k, scene in enumerate(scenes(options.scenes)):
        source = inverted(backbone, scene, options.inversion)
        made, pictures = measure(backbone, source, ways, scorer, reader)
        rows += made
        if options.figure and k == options.figure_scene:
            figure(pictures, scene, list(ways), options.figure)
    command = "python benchmarks/edits.py " + " ".join(sys.argv[1:] if arguments is None else arguments)
    text = table(rows, command.strip())
    print(text)
    print(f"{time.perf_counter() - begun:.0f} s")
    if options.out:
        write_atomically(options.out.with_suffix(".md"), lambda p: p.write_text(text))
        facts = {"command": command, "ways": ways, "fingerprint": backbone.fingerprint, "rows": rows}
        write_atomically(
            options.out.with_suffix(".json"), lambda p: p.write_text(json.dumps(facts, indent=1) + "\n")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
