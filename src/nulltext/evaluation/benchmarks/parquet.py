"""Parquet files with pictures in them, as TEDBench and ImagenHub publish theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Benchmark, Task, file_name

PARQUET_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("source_img", "original_image", "image", "input_image"),
    "prompt": ("source_global_caption", "source_prompt", "original_prompt", "prompt"),
    "target_prompt": ("target_global_caption", "target_prompt", "editing_prompt", "target_text"),
    "name": ("img_id", "id"),
    "edit_type": ("edit_type", "editing_type_id"),
    "mask_image": ("mask_img", "mask_image"),
    "counterfactual": ("target_img", "edited_image"),
}
"""The columns of known data sets that hold what a task needs, likeliest first (ImagenHub's first)."""


def read_parquet(folder: Path, columns: Mapping[str, str] | None = None) -> Benchmark:
    """Reads a parquet file, or a folder of them; a row that cannot be used is skipped and named.

    Args:
        folder: The file or the folder.
        columns: Which column holds what, where none of ``PARQUET_COLUMNS`` fits.

    Raises:
        UserError: pyarrow is absent, there is no file, a needed column is not found, or no row is usable.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("parquet needs the package pyarrow; pip install pyarrow") from error
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
        found = _columns(path, table.column_names, columns or {})
        for number, row in enumerate(table.to_pylist()):
            try:
                tasks.append(_task(row, found, f"{path.stem}_{number:05d}"))
            except ValueError as error:
                problems.append(f"{path.name} row {number}: {error}; skipped")
    return Benchmark("parquet", str(folder), tasks, problems).checked()


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
            raise UserError(
                f"{path} has no column for {wanted}; it has {', '.join(present)}: name it, "
                f"--data.columns.{wanted} COLUMN"
            )
    return found


def _task(row: Mapping[str, Any], columns: Mapping[str, str], name: str) -> Task:
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
        name=file_name(f"{label}_{name}" if label is not None else name),
        image=pictures["image"],
        prompt=str(fields["prompt"]),
        target_prompt=str(fields["target_prompt"]),
        edit_type=str(fields.get("edit_type") or "unspecified"),
        mask_image=pictures["mask_image"],
        truth=pictures["counterfactual"],
    )
