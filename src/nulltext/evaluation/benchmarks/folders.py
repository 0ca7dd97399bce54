"""Folders of pictures: with a metadata file, with captions alone, of a run, or in parquet files. None is written to."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nulltext.data.decode import decode
from nulltext.data.find import find_pictures
from nulltext.data.metadata import METADATA_NAMES, METADATA_SUFFIXES, Row, read_metadata
from nulltext.data.prompts import find_prompt
from nulltext.errors import UserError, first_line
from nulltext.evaluation.benchmarks.base import Benchmark, Task, benchmark_of, blend_words, file_name
from nulltext.inversion.reading import read_facts
from nulltext.runs.finished import ARTIFACT

PARQUET_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("source_img", "original_image", "image", "input_image"),
    "prompt": ("source_global_caption", "source_prompt", "original_prompt", "prompt"),
    "target_prompt": ("target_global_caption", "target_prompt", "editing_prompt", "target_text"),
    "name": ("img_id", "id"),
    "edit_type": ("edit_type", "editing_type_id"),
    "mask_image": ("mask_img", "mask_image"),
    "counterfactual": ("target_img", "edited_image"),
}
"""The columns of TEDBench, ImagenHub and other data sets that hold what a task needs, likeliest first."""


def read_imagefolder(folder: Path) -> Benchmark:
    """Reads a folder with a metadata file in HuggingFace's imagefolder form; see ``nulltext.data.metadata``.

    A row without a target prompt is scored by its reconstruction alone. UserError where there is no such file.
    """
    path = next((folder / n for n in METADATA_NAMES if (folder / n).is_file()), folder)
    if path.suffix not in METADATA_SUFFIXES:
        raise UserError(
            f"no metadata.jsonl or .csv in {folder}; write one with file_name, prompt, target_prompt"
        )
    return _benchmark("imagefolder", path.parent, path, *read_metadata(path))


def read_pictures(folder: Path) -> Benchmark:
    """Reads pictures that have a caption: in a text beside them or inside them, or in a metadata file."""
    return _benchmark("pictures", folder, folder, *find_pictures([folder]))


def read_run_folder(folder: Path) -> Benchmark:
    """Reads the originals of a run of ``fit``, each with the prompt of its inversion."""
    paths = sorted([*folder.glob(ARTIFACT), *folder.glob(f"*/{ARTIFACT}")])

    def task(name: str, path: Path) -> Task:
        return Task(file_name(name), path.with_name("original.png"), read_facts(path)["prompt"])

    return benchmark_of("run_folder", folder, ((path.parent.name, path) for path in paths), task, [])


def _benchmark(
    name: str, folder: Path, source: Path, rows: Sequence[Row], broken: Sequence[tuple[str, str]]
) -> Benchmark:
    """The pictures of rows, named by their place in the folder."""
    problems = [f"{place}: {reason}; skipped" for place, reason in broken]
    entries = []
    for row in rows:
        inside = row.path.relative_to(folder) if row.path.is_relative_to(folder) else Path(row.path.name)
        entries.append((file_name(inside.with_suffix("").as_posix()), row))
    return benchmark_of(name, source, entries, lambda label, row: _picture(label, row, problems), problems)


def _picture(name: str, row: Row, problems: list[str]) -> Task:
    """One picture; UserError says why it cannot be used."""
    for path in (row.path, row.mask_path, row.target_path):
        if path is not None and not path.is_file():
            raise UserError(f"no picture {path}")
    prompt = row.prompt or find_prompt(row.path, decode(row.path)[0], row=row, caption=lambda image: "").text
    if not prompt:
        raise UserError(
            f"no caption; write what it shows into {row.path.stem}.txt beside it, or a row of metadata.jsonl"
        )
    words = row.blend_word or ""
    return Task(
        name=name,
        image=row.path,
        prompt=prompt,
        target_prompt=row.target_prompt,
        edit_type=row.edit_type or "unspecified",
        blend=blend_words(f"{words} {words}" if len(words.split()) == 1 else words, row.path.name, problems),
        mask_image=row.mask_path,
        truth=row.target_path,
    )


def read_parquet(folder: Path, columns: Mapping[str, str] | None = None) -> Benchmark:
    """Reads a parquet file, or a folder of them; a row that cannot be used is skipped and named.

    ``columns`` says which column holds what, where none of ``PARQUET_COLUMNS`` fits. UserError: pyarrow, a file or a
    needed column is absent.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet needs the package pyarrow; pip install pyarrow") from error
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"no .parquet file in {folder}; give the file or its folder with --data.folder")

    def entries() -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
        for path in files:
            try:
                table = parquet.read_table(path)
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read as parquet: {first_line(error)}") from error
            found = _columns(path, table.column_names, columns or {})
            for number, row in enumerate(table.to_pylist()):
                values = {wanted: row[column] for wanted, column in found.items()}
                yield f"{path.name} row {number}", (f"{path.stem}_{number:05d}", values)

    return benchmark_of("parquet", folder, entries(), lambda label, entry: _parquet_task(*entry), [])


def _columns(path: Path, present: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
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
            there = ", ".join(present)
            raise UserError(
                f"{path} has no column for {wanted}; it has {there}: name it, --data.columns.{wanted} COLUMN"
            )
    return found


def _parquet_task(name: str, values: Mapping[str, Any]) -> Task:
    """One row; ValueError says why it cannot be used."""
    stored = (values.get(wanted) for wanted in ("image", "mask_image", "counterfactual"))
    image, mask, truth = (value.get("bytes") if isinstance(value, dict) else value for value in stored)
    if not isinstance(image, bytes):
        raise ValueError("it holds no picture")
    if not values["prompt"] or not values["target_prompt"]:
        raise ValueError("it has no prompt or no target prompt")
    label = values.get("name")
    return Task(
        name=file_name(f"{label}_{name}" if label is not None else name),
        image=image,
        prompt=str(values["prompt"]),
        target_prompt=str(values["target_prompt"]),
        edit_type=str(values.get("edit_type") or "unspecified"),
        mask_image=mask,
        truth=truth,
    )
