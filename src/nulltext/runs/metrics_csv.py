"""metrics.csv: one row for each finished picture of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nulltext.files import alone, write_text

METRICS_CSV = "metrics.csv"


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv; none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, numbers: Mapping[str, Any], order: Sequence[str] = ()) -> None:
    """Adds the numbers of a picture to metrics.csv, in place of an older row of the same name.

    Args:
        path: The file.
        numbers: The content of metrics.json; its settings are left out.
        order: The names of all pictures of the run; rows are in this order, whichever process finished them when.
    """
    row = {key: str(value) for key, value in numbers.items() if key != "settings"}
    place = {name: k for k, name in enumerate(order)}
    text = io.StringIO()
    with alone(path.parent.parent):
        rows = [old for old in read_rows(path) if old.get("name") != row["name"]] + [row]
        columns = list(dict.fromkeys(key for each in (row, *rows) for key in each))
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda entry: place.get(entry["name"], len(place))))
        write_text(path, text.getvalue())
