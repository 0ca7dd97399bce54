"""PIE-Bench (Ju et al., arXiv 2310.01506): a mapping file beside ``annotation_images/``."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nulltext.data.text import inside
from nulltext.errors import UserError, first_line
from nulltext.evaluation.benchmarks.base import Benchmark, Task, benchmark_of, blend_words, file_name
from nulltext.evaluation.benchmarks.run_length import decode_runs

PIE_TYPES = (
    "0_random 1_change_object 2_add_object 3_delete_object 4_change_attribute_content 5_change_attribute_pose "
    "6_change_attribute_color 7_change_attribute_material 8_change_background 9_change_style"
).split()
"""PIE-Bench's ten kinds of edit, in the order of their ``editing_type_id``."""
MAPPING = "mapping_file.json"


def read_pie_bench(folder: Path, mapping: str = MAPPING) -> Benchmark:
    """Reads PIE-Bench's mapping file, or its second list; an entry that cannot be used is skipped and named.

    Prompts lose their [brackets]. ``blended_word`` is "source target". ``editing_type_id`` is a string from "0" to
    "9", and the picture's folder ("1_change_object_80") names the type. An entry may have ``counterfactual_path``, our
    own addition, relative to ``annotation_images/`` like ``image_path``. UserError: no such file, not JSON, no mapping.
    """
    path = Path(folder) / mapping
    problems: list[str] = []

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """The second use of a key is named and dropped; ``json`` alone silently takes the last."""
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                problems.append(f"{key}: its key is in the file twice; the second skipped")
            found.setdefault(key, value)
        return found

    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except FileNotFoundError as error:
        raise UserError(f"no {mapping} in {folder}; give PIE-Bench's folder with --data.folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path} is not a mapping from picture ids to entries, as PIE-Bench's is")
    images = Path(folder) / "annotation_images"
    benchmark = benchmark_of(
        "pie_bench", path, entries.items(), lambda key, entry: _task(key, entry, images, problems), problems
    )
    return replace(benchmark, prompts="without their brackets")


def _task(key: str, entry: Any, images: Path, problems: list[str]) -> Task:
    """One entry of the mapping file; ValueError says why it cannot be used."""
    if not isinstance(entry, dict):
        raise ValueError("its entry is not an object")
    needed = ("image_path", "original_prompt", "editing_prompt")
    missing = [k for k in needed if not isinstance(entry.get(k), str)]
    if missing:
        raise ValueError(f"its entry has no text under {', '.join(missing)}")
    image = _inside(images, entry["image_path"])
    if not image.is_file():
        raise ValueError(f"no picture {image}")
    runs = entry.get("mask")
    if runs is not None:
        if not isinstance(runs, list):
            raise ValueError("its mask is not a list of numbers")
        decode_runs(runs)
    answer = entry.get("counterfactual_path")
    truth = _inside(images, answer) if answer else None
    if truth is not None and not truth.is_file():
        problems.append(f"{key}: no counterfactual {truth}; used without it")
        truth = None
    return Task(
        name=file_name(key),
        image=image,
        prompt=_plain(entry["original_prompt"]),
        target_prompt=_plain(entry["editing_prompt"]),
        edit_type=_type(entry.get("editing_type_id"), entry["image_path"]),
        blend=blend_words(entry.get("blended_word"), key, problems),
        mask_runs=None if runs is None else tuple(runs),
        truth=truth,
    )


def _inside(folder: Path, name: Any) -> Path:
    """A file of the folder; ValueError where its name leads out of it."""
    if not isinstance(name, str) or (path := inside(folder, name)) is None:
        raise ValueError(f"{str(name)[:100]!r} leaves {folder}")
    return path


def _plain(prompt: str) -> str:
    """A prompt without PIE-Bench's brackets around what changes."""
    return " ".join(re.sub(r"[\[\]]", "", prompt).split())


def _type(value: Any, image_path: str) -> str:
    """The name of an ``editing_type_id``: the picture's folder without its count, or PIE-Bench's own name."""
    if value is None:
        return "unspecified"
    if isinstance(value, bool) or str(value) not in map(str, range(len(PIE_TYPES))):
        raise ValueError(f"its editing_type_id {value!r} is none of '0' to '9'")
    folder = image_path.split("/")[0]
    return re.sub(r"_\d+$", "", folder) if folder.startswith(f"{value}_") else PIE_TYPES[int(value)]
