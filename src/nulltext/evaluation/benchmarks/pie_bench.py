"""PIE-Bench (Ju et al., arXiv 2310.01506): a mapping file beside ``annotation_images/``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Benchmark, Task, blend_words, file_name
from nulltext.evaluation.benchmarks.run_length import decode_runs

PIE_TYPES = (
    "0_random",
    "1_change_object",
    "2_add_object",
    "3_delete_object",
    "4_change_attribute_content",
    "5_change_attribute_pose",
    "6_change_attribute_color",
    "7_change_attribute_material",
    "8_change_background",
    "9_change_style",
)
"""PIE-Bench's ten kinds of edit, in the order of their ``editing_type_id``."""
MAPPING = "mapping_file.json"


def read_pie_bench(folder: Path, mapping: str = MAPPING) -> Benchmark:
    """Reads PIE-Bench's mapping file; an entry that cannot be used is skipped and named.

    Prompts lose their [brackets]. ``blended_word`` is "source target". ``editing_type_id`` is a string from "0" to
    "9", and the picture's folder ("1_change_object_80") names the type. An entry may have ``counterfactual_path``, our
    own addition, relative to ``annotation_images/`` like ``image_path``.

    Args:
        folder: Holds the mapping file and ``annotation_images/``.
        mapping: The file's name; ``mapping_file_ti2i_benchmark.json`` is PIE-Bench's second list.

    Raises:
        UserError: No such file, not JSON, or no usable entry.
    """
    path = Path(folder) / mapping
    problems: list[str] = []
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, problems))
    except FileNotFoundError as error:
        raise UserError(f"no {mapping} in {folder}; give PIE-Bench's folder with --data.folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path} is not a mapping from picture ids to entries, as PIE-Bench's is")
    tasks = []
    for key, entry in entries.items():
        try:
            tasks.append(_task(key, entry, Path(folder) / "annotation_images", problems))
        except ValueError as error:
            problems.append(f"{key}: {error}; skipped")
    return Benchmark("pie_bench", str(path), tasks, problems).checked()


def _unique(pairs: Iterable[tuple[str, Any]], problems: list[str]) -> dict[str, Any]:
    """A JSON object; the second use of a key is named and dropped (``json`` alone silently takes the last)."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            problems.append(f"{key}: its key is in the file twice; the second skipped")
        else:
            result[key] = value
    return result


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
    blend, complaint = blend_words(entry.get("blended_word"))
    if complaint:
        problems.append(f"{key}: {complaint}")
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
        blend=blend,
        mask_runs=None if runs is None else tuple(runs),
        truth=truth,
    )


def _inside(folder: Path, name: Any) -> Path:
    """A file of the folder; ValueError where its name leads out of it. Links in the folder are followed."""
    parts = Path(name).parts if isinstance(name, str) else ("..",)
    if ".." in parts or Path(*parts).is_absolute():
        raise ValueError(f"{str(name)[:100]!r} leaves {folder}")
    return folder / name


def _plain(prompt: str) -> str:
    """A prompt without PIE-Bench's brackets around what changes."""
    return re.sub(r"\s+", " ", prompt.replace("[", "").replace("]", "")).strip()


def _type(value: Any, image_path: str) -> str:
    """The name of an ``editing_type_id``: the picture's folder without its count, or PIE-Bench's own name."""
    if value is None:
        return "unspecified"
    if isinstance(value, bool) or str(value) not in map(str, range(len(PIE_TYPES))):
        raise ValueError(f"its editing_type_id {value!r} is none of '0' to '9'")
    folder = image_path.split("/")[0]
    return re.sub(r"_\d+$", "", folder) if folder.startswith(f"{value}_") else PIE_TYPES[int(value)]
