"""Readers of editing benchmarks: PIE-Bench, an imagefolder with metadata, parquet.

Each gives the same `Task`s. An entry that cannot be used is skipped, named and counted in
`Benchmark.problems`; a folder in which nothing can be used is an error.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nulltext.benchmark_tasks import Benchmark, Stored, Task, decode_runs
from nulltext.errors import UserError

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
"""PIE-Bench's ten kinds of edit, in the order of their `editing_type_id`."""


def read_pie_bench(folder: Path, mapping: str = "mapping_file.json") -> Benchmark:
    """Read PIE-Bench (arXiv 2310.01506): a mapping file beside `annotation_images/`.

    Prompts lose their [brackets]; `blended_word` is "source target"; `editing_type_id` is a string from "0"
    to "9", and the picture's folder ("1_change_object_80") names the type. An entry may carry
    `counterfactual_path`, our own addition, relative to `annotation_images/` like `image_path`.

    Args:
        folder: Holds the mapping file and `annotation_images/`.
        mapping: The file's name; `mapping_file_ti2i_benchmark.json` is PIE-Bench's second list.

    Raises:
        UserError: No such file, not JSON, or no usable entry.
    """
    path = Path(folder) / mapping
    problems: list[str] = []
    try:
        entries = json.loads(path.read_text(), object_pairs_hook=lambda pairs: _unique(pairs, problems))
    except FileNotFoundError as error:
        raise UserError(f"no {mapping} in {folder}; give PIE-Bench's folder with --data.folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path} is not a mapping from picture ids to entries, as PIE-Bench's is")
    tasks = []
    for key, entry in entries.items():
        try:
            tasks.append(_pie_task(key, entry, Path(folder) / "annotation_images", problems))
        except ValueError as error:
            problems.append(f"{key}: {error}; skipped")
    return _checked(Benchmark("pie_bench", str(path), tasks, problems))


def _unique(pairs: Iterable[tuple[str, Any]], problems: list[str]) -> dict[str, Any]:
    """A JSON object; the second use of a key is named and dropped (`json` alone keeps the last, unseen)."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            problems.append(f"{key}: its key stands twice in the file; the second skipped")
        else:
            result[key] = value
    return result


def _pie_task(key: str, entry: Any, images: Path, problems: list[str]) -> Task:
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
    blend, complaint = _blend(entry.get("blended_word", ""))
    if complaint:
        problems.append(f"{key}: {complaint}; kept, without a blend")
    answer = entry.get("counterfactual_path")
    counterfactual = _inside(images, answer) if answer else None
    if counterfactual is not None and not counterfactual.is_file():
        problems.append(f"{key}: no counterfactual {counterfactual}; kept, without it")
        counterfactual = None
    return Task(
        name=_file_name(key),
        image=image,
        prompt=_plain(entry["original_prompt"]),
        target_prompt=_plain(entry["editing_prompt"]),
        edit_type=_pie_type(entry.get("editing_type_id"), entry["image_path"]),
        blend=blend,
        mask_runs=None if runs is None else tuple(runs),
        counterfactual=counterfactual,
    )


def _inside(folder: Path, name: Any) -> Path:
    """A file of the folder; ValueError where its name leads out of it."""
    if not isinstance(name, str) or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{str(name)[:100]!r} leaves {folder}")
    return folder / name


def _file_name(key: str) -> str:
    """A task's name as a file's, without what would lead to another folder."""
    return re.sub(r"[^\w.-]", "_", key)[:100].strip(".") or "task"


def _plain(prompt: str) -> str:
    """A prompt without PIE-Bench's brackets around what changes."""
    return re.sub(r"\s+", " ", prompt.replace("[", "").replace("]", "")).strip()


def _pie_type(value: Any, image_path: str) -> str:
    """The name of an `editing_type_id`: the picture's folder without its count, or PIE-Bench's own name."""
    if value is None:
        return "unspecified"
    if isinstance(value, bool) or str(value) not in map(str, range(len(PIE_TYPES))):
        raise ValueError(f"its editing_type_id {value!r} is none of '0' to '9'")
    folder = image_path.split("/")[0]
    return re.sub(r"_\d+$", "", folder) if folder.startswith(f"{value}_") else PIE_TYPES[int(value)]


def _blend(words: Any) -> tuple[tuple[str, str] | None, str | None]:
    """The two words of a blend, and a complaint where there are not two."""
    if words is None or words == "":
        return None, None
    parts = words.split() if isinstance(words, str) else []
    if len(parts) != 2:
        return None, f"its blended words {words!r} are not two, source and target"
    return (parts[0], parts[1]), None


def read_imagefolder(folder: Path) -> Benchmark:
    """Read a folder of pictures with `metadata.jsonl` or `metadata.csv` in HuggingFace's imagefolder form.

    Columns: `file_name`, `prompt`, `target_prompt`; if wanted `blend_word` ("source target", or one word for
    both), `mask_file_name`, `target_file_name` (the true answer) and `edit_type`.

    Raises:
        UserError: No metadata file, or no usable row.
    """
    folder = Path(folder)
    path = next((folder / n for n in ("metadata.jsonl", "metadata.csv") if (folder / n).is_file()), None)
    if path is None:
        raise UserError(
            f"no metadata.jsonl or .csv in {folder}; write one with file_name, prompt, target_prompt"
        )
    tasks: list[Task] = []
    problems: list[str] = []
    for number, row in enumerate(_rows(path), start=1):
        try:
            tasks.append(_imagefolder_task(row, folder, problems))
        except ValueError as error:
            name = row.get("file_name") if isinstance(row, dict) else None
            problems.append(f"{name or f'row {number}'}: {error}; skipped")
    return _checked(Benchmark("imagefolder", str(path), tasks, problems))


def _rows(path: Path) -> list[Any]:
    """The rows of a metadata file; a line that is no JSON becomes a text, which no task can be made of."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    rows: list[Any] = []
    for line in filter(str.strip, text.splitlines()):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            rows.append(line)
    return rows


def _imagefolder_task(row: Any, folder: Path, problems: list[str]) -> Task:
    """One row of the metadata; ValueError says why it cannot be used."""
    if not isinstance(row, dict):
        raise ValueError("its line is not a JSON object")
    missing = [
        k for k in ("file_name", "prompt", "target_prompt") if not isinstance(row.get(k), str) or not row[k]
    ]
    if missing:
        raise ValueError(f"its row has no {', '.join(missing)}")
    files: dict[str, Path | None] = {}
    for column in ("file_name", "mask_file_name", "target_file_name"):
        files[column] = _inside(folder, row[column]) if row.get(column) else None
        if files[column] is not None and not files[column].is_file():  # type: ignore[union-attr]
            raise ValueError(f"no picture {files[column]}")
    words = row.get("blend_word") or ""
    blend, complaint = _blend(f"{words} {words}" if len(str(words).split()) == 1 else words)
    if complaint:
        problems.append(f"{row['file_name']}: {complaint}; kept, without a blend")
    image = files["file_name"]
    assert image is not None
    return Task(
        name=_file_name(Path(row["file_name"]).with_suffix("").as_posix()),
        image=image,
        prompt=row["prompt"],
        target_prompt=row["target_prompt"],
        edit_type=row.get("edit_type") or "unspecified",
        blend=blend,
        mask_image=files["mask_file_name"],
        counterfactual=files["target_file_name"],
    )


PARQUET_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("source_img", "original_image", "image", "input_image"),
    "prompt": ("source_global_caption", "source_prompt", "original_prompt", "prompt"),
    "target_prompt": ("target_global_caption", "target_prompt", "editing_prompt", "target_text"),
    "name": ("img_id", "id"),
    "edit_type": ("edit_type", "editing_type_id"),
    "mask_image": ("mask_img", "mask_image"),
    "counterfactual": ("target_img", "edited_image"),
}
"""Column names under which known data sets keep what a task needs, likeliest first (ImagenHub's first)."""


def read_parquet(folder: Path, columns: Mapping[str, str] | None = None) -> Benchmark:
    """Read parquet files with pictures in them, as TEDBench and ImagenHub publish theirs.

    Args:
        folder: A parquet file, or a folder of them.
        columns: Which column holds what, where the usual names (`PARQUET_COLUMNS`) do not fit.

    Raises:
        UserError: pyarrow is absent, there is no file, a needed column is not found, or no row is usable.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet needs the package pyarrow; pip install pyarrow") from error
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"no .parquet file in {folder}; give the file or its folder with --data.folder")
    tasks: list[Task] = []
    problems: list[str] = []
    for path in files:
        try:
            table = parquet.read_table(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
        found = _parquet_columns(path, table.column_names, columns or {})
        for number, row in enumerate(table.to_pylist()):
            try:
                tasks.append(_parquet_task(row, found, f"{path.stem}_{number:05d}"))
            except ValueError as error:
                problems.append(f"{path.name} row {number}: {error}; skipped")
    return _checked(Benchmark("parquet", str(folder), tasks, problems))


def _parquet_columns(path: Path, present: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Which column holds which field: the user's choice, or the first usual name that is there."""
    unknown = sorted(set(chosen) - set(PARQUET_COLUMNS))
    if unknown:
        raise UserError(f"data.columns knows no {', '.join(unknown)}; it has {', '.join(PARQUET_COLUMNS)}")
    found = {}
    for wanted, usual in PARQUET_COLUMNS.items():
        name = next((n for n in ((chosen[wanted],) if wanted in chosen else usual) if n in present), None)
        if name is not None:
            found[wanted] = name
        elif wanted in chosen or wanted in ("image", "prompt", "target_prompt"):
            raise UserError(
                f"{path} has no column for {wanted}; it has {', '.join(present)}: name it, "
                f"--data.columns.{wanted} COLUMN"
            )
    return found


def _parquet_task(row: Mapping[str, Any], columns: Mapping[str, str], name: str) -> Task:
    """One row; ValueError says why it cannot be used."""
    fields = {wanted: row[column] for wanted, column in columns.items()}
    pictures = {}
    for wanted in ("image", "mask_image", "counterfactual"):
        value = fields.get(wanted)
        pictures[wanted] = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(pictures["image"], bytes):
        raise ValueError("it holds no picture")
    if not fields["prompt"] or not fields["target_prompt"]:
        raise ValueError("it has no prompt or no target prompt")
    label = fields.get("name")
    return Task(
        name=re.sub(r"[^\w.-]", "_", f"{label}_{name}") if label is not None else name,
        image=pictures["image"],
        prompt=str(fields["prompt"]),
        target_prompt=str(fields["target_prompt"]),
        edit_type=str(fields.get("edit_type") or "unspecified"),
        mask_image=pictures["mask_image"],
        counterfactual=pictures["counterfactual"],
    )


def read_benchmark(
    kind: Literal["pie_bench", "imagefolder", "parquet"],
    folder: Path,
    mapping: str = "mapping_file.json",
    columns: Mapping[str, str] | None = None,
) -> Benchmark:
    """Read a benchmark of a given kind from its folder.

    Raises:
        UserError: The folder is not there, or nothing in it can be used.
    """
    if not Path(folder).exists():
        raise UserError(f"no folder {folder}; give the benchmark's with --data.folder")
    if kind == "pie_bench":
        return read_pie_bench(folder, mapping)
    if kind == "imagefolder":
        return read_imagefolder(folder)
    return read_parquet(folder, columns)


def _checked(benchmark: Benchmark) -> Benchmark:
    """Drop the second of two equal edits and make names unique; refuse what is left with nothing.

    Two different edits of one picture are two tasks, as they should be.
    """
    seen: dict[tuple[Stored, str, str], str] = {}
    names: Counter[str] = Counter()
    kept = []
    for task in benchmark.tasks:
        what = (task.image, task.prompt, task.target_prompt)
        if what in seen:
            benchmark.problems.append(f"{task.name}: the same picture and edit as {seen[what]}; skipped")
            continue
        seen[what] = task.name
        names[task.name] += 1
        if names[task.name] > 1:
            task = replace(task, name=f"{task.name}-{names[task.name]}")
        kept.append(task)
    benchmark.tasks = kept
    if not kept:
        first = f"; the first: {' '.join(benchmark.problems[0].split())}" if benchmark.problems else ""
        raise UserError(f"{benchmark.source} has no usable entry ({len(benchmark.problems)} skipped{first})")
    return benchmark
