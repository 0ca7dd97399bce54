"""The folder of a benchmark run: one record for each edit while it runs, so that a restart continues.

OUTPUT/choices.json            everything that the numbers depend on; a run with other choices is refused
OUTPUT/pictures/NAME.json      the scores of one edit and what was wrong with it, written after all its pictures
OUTPUT/pictures/NAME/*.png     source, truth, and one picture for each method and way of editing
OUTPUT/results.csv .json .md   a row for each picture, edit and method; the summary; tables to read
OUTPUT/sheets, OUTPUT/boxes    contact sheets and box plots
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nulltext.errors import UserError
from nulltext.evaluation.results.rows import Record, Row
from nulltext.files import write_text


class Store:
    """The folder in which a benchmark's records gather."""

    def __init__(self, folder: Path, choices: Mapping[str, Any]) -> None:
        """Opens a folder, or begins it.

        Raises:
            UserError: The folder holds a benchmark that was run with other choices.
        """
        self.folder = Path(folder)
        self.pictures = self.folder / "pictures"
        wanted = json.loads(json.dumps(choices, default=str))
        path = self.folder / "choices.json"
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{path} is damaged; delete {folder} or choose another --output") from error
            _refuse_others(folder, dict(_flat(found)), dict(_flat(wanted)))
        else:
            write_text(path, json.dumps(wanted, indent=2) + "\n")

    def record(self, name: str) -> Record | None:
        """The record of an edit; None where it is not finished, or its record is damaged."""
        try:
            found = json.loads((self.pictures / f"{name}.json").read_text(encoding="utf-8"))
            return Record([Row(**row) for row in found["rows"]], [str(p) for p in found["problems"]])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def add(self, name: str, record: Record) -> None:
        """Records an edit as finished."""
        write_text(self.pictures / f"{name}.json", json.dumps(asdict(record), indent=1) + "\n")

    def picture(self, name: str, what: str) -> Path:
        """Where a picture of an edit is."""
        return self.pictures / name / f"{what}.png"


def _flat(choices: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested choices under dotted names, as on the command line."""
    for key, value in choices.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _refuse_others(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Stops where the choices differ by more than the hardware: a benchmark may move to another machine."""
    differing = [
        f"{name} {found.get(name)!r}, not {wanted.get(name)!r}"
        for name in dict.fromkeys([*wanted, *found])
        if name != "hardware" and found.get(name) != wanted.get(name)
    ]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise UserError(
            f"{folder} was begun with {'; '.join(differing[:3])}{more}; choose another --output, or delete it"
        )
