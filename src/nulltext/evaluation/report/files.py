"""The files of a benchmark: its rows as CSV, JSON lines and an imagefolder, its summary as JSON, its tables."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

from nulltext.evaluation.protocol import digest
from nulltext.evaluation.report.tables import latex, markdown
from nulltext.evaluation.results import Results, Row, Store
from nulltext.files import write_text
from nulltext.metrics import Column

ABOUT = ("picture", "edit_type", "method", "editing", "prompt", "target_prompt")


def write_results(results: Results, store: Store) -> None:
    """Writes results.csv, .jsonl, .json, .md and .tex, and the pictures' metadata.jsonl."""
    write_text(store.pictures / "metadata.jsonl", _lines(rows_of(results, store)))
    rows = rows_of(results, store, f"{store.pictures.name}/")
    texts = {"csv": _csv(rows), "jsonl": _lines(rows), "json": _json(results)}
    for name, text in (texts | {"md": markdown(results), "tex": latex(results)}).items():
        write_text(store.folder / f"results.{name}", text)


def rows_of(results: Results, store: Store, before: str = "") -> list[dict[str, Any]]:
    """A row for each output, what was not measured None; file names are in the pictures' folder, after ``before``."""

    def file(row: Row, name: str) -> str | None:
        return f"{before}{row.picture}/{name}.png" if store.picture(row.picture, name).is_file() else None

    return [
        {
            "file_name": file(row, f"{row.method}-{row.editing}"),
            "source_file_name": file(row, "source"),
            "mask_file_name": file(row, "mask"),
            **{name: getattr(row, name) for name in ABOUT},
            **{column.name: row.scores.get(column.name) for column in results.columns},
            "protocol": digest(results.protocol),
        }
        for row in results.rows
    ]


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    """JSON lines; NaN, which is no JSON, becomes null."""
    plain = ({k: None if v != v else v for k, v in row.items()} for row in rows)
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in plain)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """What was not measured stays empty; NaN is nan."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()


def _json(results: Results) -> str:
    """The summary, raw values without the tables' scales; NaN becomes null."""

    def cells(of: Callable[[str, str, Column], Any]) -> dict[str, Any]:
        """What was found of each method and way, by metric; without what was not measured."""
        return {
            f"{method} {way}": {
                column.name: {k: None if v != v else v for k, v in asdict(found).items()}
                for column in results.columns
                if (found := of(method, way, column)).n + getattr(found, "nan", 0)
            }
            for method, way in product(results.methods, results.ways)
        }

    kinds = [None, *sorted({row.edit_type for row in results.rows})]
    document = {
        "protocol": {"stamp": digest(results.protocol), **results.protocol},
        "edits": len({row.picture for row in results.rows}),
        "choices": results.choices,
        "definitions": {column.name: column.definition for column in results.columns},
        "absent": results.absent,
        "problems": results.problems,
        "summary": {kind or "all": cells(partial(results.summary, edit_type=kind)) for kind in kinds},
        f"differences from {results.baseline}": cells(results.difference),
    }
    return json.dumps(document, indent=1, default=str) + "\n"
