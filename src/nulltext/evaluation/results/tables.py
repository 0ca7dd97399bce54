"""Tables of a benchmark: results.csv, results.json and results.md."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nulltext.evaluation.results.rows import RECONSTRUCTION, Results, Summary
from nulltext.files import write_text
from nulltext.metrics import Column

OF_OUTPUTS = {
    "pie": "PIE-Bench's table",
    "truth": "Against the true picture, and corrected forms",
    "further": "Further metrics",
}
"""The tables with a row for each method and way of editing, by the name that columns use."""


def write_results(results: Results, folder: Path) -> None:
    """Writes results.csv, results.json and results.md."""
    write_text(folder / "results.csv", _csv(results))
    write_text(folder / "results.json", _json(results))
    write_text(folder / "results.md", markdown(results))


def _csv(results: Results) -> str:
    """A row for each picture, method and way of editing; what was not measured stays empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [column.name for column in results.columns]
    writer.writerow(["picture", "edit_type", "method", "editing", *names])
    for row in results.rows:
        values = ["" if (v := row.value(name)) is None else f"{v:.6g}" for name in names]
        writer.writerow([row.picture, row.edit_type, row.method, row.editing, *values])
    return out.getvalue()


def _json(results: Results) -> str:
    """The summary, raw values without the tables' scales; NaN becomes null."""
    summary = {
        kind or "all": {
            f"{method} {editing}": {
                column.name: {k: None if v != v else v for k, v in asdict(cell).items()}
                for column in results.columns
                if (cell := results.summary(method, editing, column, kind)).n + cell.nan
            }
            for method in results.methods
            for editing in results.ways
        }
        for kind in [None, *sorted({row.edit_type for row in results.rows})]
    }
    document = {
        "edits": len({row.picture for row in results.rows}),
        "choices": results.choices,
        "definitions": {column.name: column.definition for column in results.columns},
        "absent": results.absent,
        "problems": results.problems,
        "summary": summary,
    }
    return json.dumps(document, indent=1, default=str) + "\n"


def markdown(results: Results, notes: bool = True) -> str:
    """The tables to read.

    Args:
        results: The rows.
        notes: Also what the columns mean, what is absent and why, what was skipped, and the choices.
    """
    pictures = len({row.picture for row in results.rows})
    what = "pictures" if results.ways == [RECONSTRUCTION] else "edits"
    parts = [f"# {results.choices.get('benchmark', 'benchmark')}: {pictures} {what}\n"]
    parts.append(f"Mean ± standard deviation over {what}; NaNs are left out and counted.\n")
    parts.append(_by_method(results, "Reconstruction", RECONSTRUCTION, results.table("reconstruction")))
    for way in results.ways:
        output = "the reconstruction" if way == RECONSTRUCTION else f"the {way.replace('_', '-')} edit"
        parts.append(_by_method(results, f"Source and target: {output}", way, results.table("slides")))
    parts += [_by_output(results, title, results.table(name)) for name, title in OF_OUTPUTS.items()]
    return "\n".join([*filter(None, parts), *([_notes(results)] if notes else [])])


def _by_method(results: Results, title: str, way: str, columns: Sequence[Column]) -> str:
    """A table with a row for each metric and a column for each method."""
    cells = [
        [c.heading, *(_cell(results.summary(method, way, c), c) for method in results.methods)]
        for c in columns
    ]
    return _table(title, ["metric", *results.methods], cells)


def _by_output(results: Results, title: str, columns: Sequence[Column]) -> str:
    """A table with a row for each method and way of editing; "" where nothing was measured."""
    ways = [way for way in results.ways if way != RECONSTRUCTION]
    if not columns or not ways:
        return ""
    cells = [
        [method, way, *(_cell(results.summary(method, way, column), column) for column in columns)]
        for way in ways
        for method in results.methods
    ]
    return _table(title, ["method", "editing", *(column.heading for column in columns)], cells)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}\n", *("| " + " | ".join(cells) + " |" for cells in lines)]) + "\n"


def _cell(summary: Summary, column: Column) -> str:
    """Mean ± deviation at the table's scale, with the number of NaNs where there are any."""
    if not summary.n + summary.nan:
        return "-"
    spread = f" ± {column.format(summary.std)}" if summary.n > 1 else ""
    return column.format(summary.mean) + spread + (f" ({summary.nan} NaN)" if summary.nan else "")


def _notes(results: Results) -> str:
    """What the columns mean, what is absent and why, what was skipped, and the choices."""
    lines = ["## Definitions\n"]
    lines += [
        f"- **{c.heading}** (`{c.name}`, {c.better} is better): {c.definition}" for c in results.columns
    ]
    if results.absent:
        lines += ["\n## Left out\n", *(f"- `{name}`: {why}" for name, why in results.absent.items())]
    if results.problems:
        lines += [
            f"\n## Skipped: {len(results.problems)}\n",
            *(f"- {problem}" for problem in results.problems),
        ]
    choices = (f"- {k}: {json.dumps(v, default=str)}" for k, v in results.choices.items())
    return "\n".join([*lines, "\n## Choices\n", *choices]) + "\n"
