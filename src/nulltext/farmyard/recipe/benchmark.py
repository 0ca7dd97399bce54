"""The farmyard benchmark: 140 edits of held-out scenes, true masks and answers, in PIE-Bench's format.

Ten types of edit in PIE-Bench's proportions, a fifth of its 700; the material of type 7 is a hat's, of straw or not.
The answers are exact because a scene is drawn from a description: the counterfactual is the same scene with
the words of the edit changed, and the mask is where the two drawings differ.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nulltext.evaluation.benchmarks.run_length import PIE_SIDE, encode_runs
from nulltext.farmyard.world import (
    HELD_OUT_SEEDS,
    SHIPPED,
    Scene,
    World,
    changed_pixels,
    draw,
    replace,
)
from nulltext.files import write_atomically

FIRST_SEED = HELD_OUT_SEEDS.start + 500_000
"""Seed of the benchmark's first scene; the others follow."""

VERSION = 1
"""Raised when the same seeds come to mean other pictures, so that an old folder is drawn anew."""


@dataclass(frozen=True)
class SceneEdit:
    """A scene before and after, and between which two words the edit takes place ("" for everywhere)."""

    before: Scene
    after: Scene
    blended_word: str
    instruction: str
    everywhere: bool = False
    """Whether every pixel is to change, whatever a few of them happen to do."""


def _other(draws: random.Random, known: tuple[Any, ...], *taken: Any) -> Any:
    """One of the known values that is neither None nor taken."""
    return draws.choice([value for value in known if value is not None and value not in taken])


def _object(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    animal = _other(draws, world.choices["animal"], scene.animal)
    words = f"{scene.animal} {animal}"
    instruction = f"change the {scene.animal} for another animal, {animal}"
    return SceneEdit(scene, replace(scene, animal=animal), words, instruction)


def _add(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    if draws.random() < 0.5:
        before = replace(scene, hat=None)
        hat = _other(draws, world.choices["hat"])
        return SceneEdit(before, replace(before, hat=hat), f"{scene.animal} hat", f"add a {hat}")
    before = replace(scene, object=None)
    thing = _other(draws, world.choices["object"])
    return SceneEdit(before, replace(before, object=thing), f"{scene.place} {thing}", f"add a {thing}")


def _delete(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    if draws.random() < 0.5:
        before = replace(scene, hat=_other(draws, world.choices["hat"]))
        return SceneEdit(before, replace(before, hat=None), f"hat {scene.animal}", "remove the hat")
    before = replace(scene, object=_other(draws, world.choices["object"]))
    after = replace(before, object=None)
    return SceneEdit(before, after, f"{before.object} {scene.place}", f"remove the {before.object}")


def _content(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    before = replace(scene, object=_other(draws, world.choices["object"]))
    thing = _other(draws, world.choices["object"], before.object)
    words, instruction = f"{before.object} {thing}", f"make the {before.object} a {thing}"
    return SceneEdit(before, replace(before, object=thing), words, instruction)


def _hat(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    before = replace(scene, hat=_other(draws, world.choices["hat"], "straw hat"))
    hat = _other(draws, world.choices["hat"], "straw hat", before.hat)
    return SceneEdit(before, replace(before, hat=hat), "hat hat", f"make the {before.hat} a {hat}")


def _pose(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    facing = _other(draws, world.choices["facing"], scene.facing)
    words = f"{scene.animal} {scene.animal}"
    return SceneEdit(scene, replace(scene, facing=facing), words, f"make the {scene.animal} look {facing}")


def _colour(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    colour = _other(draws, world.choices["colour"], scene.colour)
    words = f"{scene.animal} {scene.animal}"
    return SceneEdit(scene, replace(scene, colour=colour), words, f"make the {scene.animal} {colour}")


def _material(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    before = replace(scene, hat=_other(draws, world.choices["hat"], "straw hat"))
    return SceneEdit(before, replace(before, hat="straw hat"), "hat hat", f"make the {before.hat} of straw")


def _background(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    place = _other(draws, world.choices["place"], scene.place)
    return SceneEdit(scene, replace(scene, place=place), f"{scene.place} {place}", f"move it to the {place}")


def _style(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    style = _other(draws, world.choices["style"], scene.style)
    return SceneEdit(scene, replace(scene, style=style), "", f"make it a {style}", everywhere=True)


def _random(world: World, scene: Scene, draws: random.Random) -> SceneEdit:
    """Two of the other changes at once; a blend only where both happen on the animal."""
    kinds = draws.sample([_object, _colour, _content, _hat, _background], 2)
    first = kinds[0](world, scene, draws)
    second = kinds[1](world, first.after, draws)  # may set what it then changes, on both sides
    field = _FIELD[kinds[0]]
    before = replace(second.before, **{field: getattr(first.before, field)})
    on_animal = set(kinds) == {_object, _colour}
    words = f"{before.animal} {second.after.animal}" if on_animal else ""
    return SceneEdit(before, second.after, words, f"{first.instruction} and {second.instruction}")


_Kind = Callable[[World, Scene, random.Random], SceneEdit]
_FIELD: dict[_Kind, str] = {
    _object: "animal",
    _colour: "colour",
    _content: "object",
    _hat: "hat",
    _background: "place",
}


EDIT_TYPES: tuple[tuple[str, int, _Kind], ...] = (
    ("0_random", 28, _random),
    ("1_change_object", 16, _object),
    ("2_add_object", 16, _add),
    ("3_delete_object", 16, _delete),
    ("4_change_attribute_content", 8, _content),
    ("5_change_attribute_pose", 8, _pose),
    ("6_change_attribute_color", 8, _colour),
    ("7_change_attribute_material", 8, _material),
    ("8_change_background", 16, _background),
    ("9_change_style", 16, _style),
)
"""Name, number of scenes and maker of each type; the leading digit is PIE-Bench's `editing_type_id`."""


def scene_edits(world: World = SHIPPED) -> list[tuple[str, SceneEdit]]:
    """The benchmark's edits with their types, the same at every call."""
    kinds = [(name, make) for name, count, make in EDIT_TYPES for _ in range(count)]
    return [
        (name, make(world, world.random_scene(FIRST_SEED + i), random.Random(FIRST_SEED + i)))
        for i, (name, make) in enumerate(kinds)
    ]


def write_farmyard_benchmark(
    folder: Path, progress: Callable[[int, int], None] | None = None, world: World = SHIPPED
) -> Path:
    """Draw the benchmark into a folder in PIE-Bench's format, unless it is there already.

    512 x 512 PNGs under `annotation_images/`, the answers under `annotation_images/counterfactual/`, and
    `mapping_file.json`, written last, so that an interrupted drawing is finished by the next call.

    Args:
        folder: Where to; made if need be.
        progress: Called with pictures done and all pictures.
        world: Whose scenes.

    Returns:
        The folder.
    """
    mapping = folder / "mapping_file.json"
    stamp = folder / "farmyard_version.txt"
    if mapping.is_file() and stamp.is_file() and stamp.read_text().strip() == _stamp(world):
        return folder
    counts = {name: count for name, count, _ in EDIT_TYPES}
    edits = scene_edits(world)
    entries = {}
    for i, (kind, edit) in enumerate(edits):
        path = f"{kind}_{counts[kind]}/{i:012d}.png"
        entries[f"{i:012d}"] = _entry(path, kind, edit, world)
        for scene, where in ((edit.before, path), (edit.after, f"counterfactual/{path}")):
            save = partial(draw(scene, PIE_SIDE).save, format="PNG")
            write_atomically(folder / "annotation_images" / where, save)
        if progress:
            progress(i + 1, len(edits))
    for file, text in ((mapping, json.dumps(entries, indent=1)), (stamp, _stamp(world))):
        write_atomically(file, partial(_write_line, text=text))
    return folder


def _stamp(world: World) -> str:
    return f"{VERSION} of {world.size} pixels"


def _write_line(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _entry(path: str, kind: str, edit: SceneEdit, world: World) -> dict[str, Any]:
    """One entry of the mapping file; `counterfactual_path` is the one key that PIE-Bench does not have."""
    original, editing = _marked(world.caption(edit.before), world.caption(edit.after))
    return {
        "image_path": path,
        "original_prompt": original,
        "editing_prompt": editing,
        "editing_instruction": edit.instruction,
        "editing_type_id": kind[0],
        "blended_word": edit.blended_word,
        "mask": encode_runs(torch.from_numpy(true_mask(edit, world))),
        "counterfactual_path": f"counterfactual/{path}",
    }


def true_mask(edit: SceneEdit, world: World = SHIPPED) -> np.ndarray:
    """Where the two drawings differ, bool (512, 512), in cells of one pixel of the world's.

    One changed pixel of the 512 changes its cell.

    A change of style has no background: its mask is the whole picture.
    """
    if edit.everywhere:
        return np.ones((PIE_SIDE, PIE_SIDE), dtype=bool)
    cell = PIE_SIDE // world.size
    changed = changed_pixels(edit.before, edit.after, PIE_SIDE)
    cells = changed.reshape(world.size, cell, world.size, cell).any(axis=(1, 3))
    return cells.repeat(cell, 0).repeat(cell, 1)


def _marked(before: str, after: str) -> tuple[str, str]:
    """Both prompts with [brackets] around the words that the other lacks, as PIE-Bench writes them."""
    a, b = before.split(), after.split()
    marked_a, marked_b = list(a), list(b)
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            _bracket(marked_a, i, j)
            _bracket(marked_b, k, m)
    return " ".join(marked_a), " ".join(marked_b)


def _bracket(words: list[str], start: int, end: int) -> None:
    """Put [ before the first and ] after the last of some words, if there are any."""
    if end > start:
        words[start] = f"[{words[start]}"
        words[end - 1] = f"{words[end - 1]}]"
