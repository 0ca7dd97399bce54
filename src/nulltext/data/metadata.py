"""Metadata files in the imagefolder form: metadata.jsonl, .csv, .tsv. Fitting and testing read them here."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nulltext.data.text import decode_text, inside, read_bytes
from nulltext.errors import UserError

METADATA_SUFFIXES = (".jsonl", ".csv", ".tsv")
METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in METADATA_SUFFIXES)
MAX_METADATA_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """What a metadata file says about one picture."""

    path: Path
    prompt: str | None = None
    target_prompt: str | None = None
    blend_word: str | None = None  # the word of the edit, or two: source and target
    mask_path: Path | None = None
    target_path: Path | None = None  # the picture as it would be if the target prompt were true
    edit_type: str | None = None
    place: str = field(default="", compare=False)  # file and line, such as ``metadata.jsonl:3``


def read_metadata(path: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows of a ``metadata.jsonl``, ``.csv`` or ``.tsv``.

    Columns: ``file_name`` and ``prompt`` (or ``text``); optional ``target_prompt``, ``blend_word``,
    ``mask_file_name``, ``target_file_name``, ``edit_type``. A table's columns are parted by commas, semicolons or
    tabs. File names are relative to the metadata file's folder and may not climb out of it; a link in it is followed.

    Returns:
        The rows in their order, and what was wrong with others as (place, reason).

    Raises:
        UserError: The file cannot be read at all, or has no ``file_name``.
    """
    content = read_bytes(path, MAX_METADATA_BYTES, f"{MAX_METADATA_BYTES} bytes; split it")
    text = decode_text(content, str(path))
    rows, problems = [], []
    for number, record in _lines(text) if path.suffix == ".jsonl" else _table(path, text):
        place = f"{path.name}:{number}"
        try:
            rows.append(_row(path.parent, record, place))
        except UserError as error:
            problems.append((place, str(error)))
    return rows, problems


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    """(line number, record); None for a line that is no JSON."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _table(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """(line number, record) of a table, whose first line names the columns and shows what parts them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    said = re.match(r"\s*sep=(.)\n", text)  # a line of Excel's
    text = text[said.end() :] if said else text.lstrip()
    header = text.split("\n", 1)[0]
    columns: dict[str, list[str]] = {}
    for sign in said[1] if said else ",;\t":
        with suppress(csv.Error, ValueError):  # a field beyond csv's limit; a quote that parts columns
            columns[sign] = [_plain(name) for name in next(csv.reader([header], delimiter=sign), [])]
    sign = next((sign for sign, names in columns.items() if "file_name" in names), "")
    if not sign:
        names = max((", ".join(names) for names in columns.values()), key=len, default="")[:100]
        raise UserError(
            f"{path} has no column file_name; its first line names the columns, and names {names!r}"
        )
    reader = csv.DictReader(io.StringIO(text), delimiter=sign)
    try:
        reader.fieldnames = [_plain(name) for name in reader.fieldnames or []]
        for record in reader:
            yield reader.line_num + bool(said), record
    except csv.Error:
        yield reader.line_num + bool(said), None


def _plain(name: str) -> str:
    """A column's name as it is compared."""
    return name.strip().casefold().replace(" ", "_")


def _row(folder: Path, record: Any, place: str) -> Row:
    if not isinstance(record, dict):
        raise UserError('is no row; write {"file_name": "sheep.jpg", "prompt": "a photo of a sheep"}')
    path = _inside(folder, record, "file_name")
    if path is None:
        raise UserError("has no file_name")
    return Row(
        path=path,
        prompt=_text(record, "prompt") or _text(record, "text"),
        target_prompt=_text(record, "target_prompt"),
        blend_word=_text(record, "blend_word"),
        mask_path=_inside(folder, record, "mask_file_name"),
        target_path=_inside(folder, record, "target_file_name"),
        edit_type=_text(record, "edit_type"),
        place=place,
    )


def _text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UserError(f"{key} must be text, not {type(value).__name__}")
    if re.search("[\ud800-\udfff]", value):
        raise UserError(f"{key} {value[:60]!a} holds half a character; write the whole one")
    return value


def _inside(folder: Path, record: dict[str, Any], key: str) -> Path | None:
    """The file that a column names."""
    name = _text(record, key)
    path = None if name is None else inside(folder, name)
    if name is not None and path is None:
        raise UserError(
            f"{key} {name!r:.100} leaves the folder of the metadata file; only files below are read"
        )
    return path
