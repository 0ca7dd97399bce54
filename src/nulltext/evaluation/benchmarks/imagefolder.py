"""Folders of pictures: with a metadata file, with captions alone, or of a run. Nothing is written into them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nulltext.data.decode import decode
from nulltext.data.find import find_pictures
from nulltext.data.metadata import METADATA_NAMES, METADATA_SUFFIXES, Row, read_metadata
from nulltext.data.prompts import find_prompt
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Benchmark, Task, blend_words, file_name
from nulltext.inversion.reading import read_facts

INVERSION = "inversion.safetensors"


def read_imagefolder(folder: Path) -> Benchmark:
    """Reads a folder with a metadata file in HuggingFace's imagefolder form; see ``nulltext.data.metadata``.

    A row without a target prompt is scored by its reconstruction alone.

    Raises:
        UserError: No metadata file, or no usable row.
    """
    path = next((folder / n for n in METADATA_NAMES if (folder / n).is_file()), folder)
    if path.suffix not in METADATA_SUFFIXES:
        raise UserError(
            f"no metadata.jsonl or .csv in {folder}; write one with file_name, prompt, target_prompt"
        )
    return _benchmark("imagefolder", path.parent, path, *read_metadata(path))


def read_pictures(folder: Path) -> Benchmark:
    """Reads pictures that have a caption: in a text beside them or inside them, or in a metadata file.

    Raises:
        UserError: No picture can be used.
    """
    return _benchmark("pictures", folder, folder, *find_pictures([folder]))


def read_run_folder(folder: Path) -> Benchmark:
    """Reads the originals of a run of ``fit``, each with the prompt of its inversion.

    Raises:
        UserError: No picture of the run can be used.
    """
    tasks, problems = [], []
    for path in sorted([*folder.glob(INVERSION), *folder.glob(f"*/{INVERSION}")]):
        try:
            prompt = read_facts(path)["prompt"]
            tasks.append(Task(file_name(path.parent.name), path.with_name("original.png"), prompt))
        except UserError as error:
            problems.append(f"{path.parent.name}: {error}; skipped")
    return Benchmark("run_folder", str(folder), tasks, problems).checked()


def _benchmark(
    name: str, folder: Path, source: Path, rows: Sequence[Row], broken: Sequence[tuple[str, str]]
) -> Benchmark:
    problems = [f"{place}: {reason}; skipped" for place, reason in broken]
    tasks = []
    for row in rows:
        try:
            tasks.append(_task(row, folder, problems))
        except UserError as error:
            problems.append(f"{_name(row, folder)}: {error}; skipped")
    return Benchmark(name, str(source), tasks, problems).checked()


def _name(row: Row, folder: Path) -> str:
    assert row.path is not None
    inside = row.path.relative_to(folder) if row.path.is_relative_to(folder) else Path(row.path.name)
    return file_name(inside.with_suffix("").as_posix())


def _task(row: Row, folder: Path, problems: list[str]) -> Task:
    """One picture; UserError says why it cannot be used."""
    assert row.path is not None
    for path in (row.path, row.mask_path, row.target_path):
        if path is not None and not path.is_file():
            raise UserError(f"no picture {path}")
    prompt = row.prompt or find_prompt(row.path, decode(row.path)[0], row=row, caption=lambda image: "").text
    if not prompt:
        raise UserError(
            f"no caption; write what it shows into {row.path.stem}.txt beside it, or a row of metadata.jsonl"
        )
    words = row.blend_word or ""
    blend, complaint = blend_words(f"{words} {words}" if len(words.split()) == 1 else words)
    if complaint:
        problems.append(f"{row.path.name}: {complaint}")
    return Task(
        name=_name(row, folder),
        image=row.path,
        prompt=prompt,
        target_prompt=row.target_prompt,
        edit_type=row.edit_type or "unspecified",
        blend=blend,
        mask_image=row.mask_path,
        truth=row.target_path,
    )
