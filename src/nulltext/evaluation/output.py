"""What a benchmark leaves: results.csv, .json and .md to read; contact sheets and box plots, also in TensorBoard."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from nulltext.evaluation.results import RECONSTRUCTION, Results, Row, Store
from nulltext.files import write_text
from nulltext.metrics import Column
from nulltext.pixels import save_png
from nulltext.plots import box_plot, grid

SHEET_PICTURES = 8  # of one type on its contact sheet, at most
TILE = 192  # pixels of a picture on a sheet
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
    summary: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for kind in [None, *sorted({row.edit_type for row in results.rows})]:
        of_kind = summary[kind or "all"] = {}
        for method in results.methods:
            for way in results.ways:
                cells = of_kind[f"{method} {way}"] = {}
                for column in results.columns:
                    cell = results.summary(method, way, column, kind)
                    if cell.n + cell.nan:
                        cells[column.name] = {k: None if v != v else v for k, v in asdict(cell).items()}
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
    """The tables to read, and with notes what columns mean, what is absent or was skipped and why, and the choices."""
    what = "pictures" if results.ways == [RECONSTRUCTION] else "edits"
    title = f"# {results.choices.get('benchmark', 'benchmark')}: {len({r.picture for r in results.rows})} {what}\n"
    parts = [title, f"Mean ± standard deviation over {what}; NaNs are left out and counted.\n"]
    parts.append(_by_method(results, "Reconstruction", RECONSTRUCTION, "reconstruction"))
    for way in results.ways:
        output = "the reconstruction" if way == RECONSTRUCTION else f"the {way.replace('_', '-')} edit"
        parts.append(_by_method(results, f"Source and target: {output}", way, "slides"))
    parts += [_by_output(results, title, table) for table, title in OF_OUTPUTS.items()]
    return "\n".join([*filter(None, parts), *([_notes(results)] if notes else [])])


def _by_method(results: Results, title: str, way: str, table: str) -> str:
    """A table with a row for each metric and a column for each method."""
    lines = [
        [column.heading, *(_cell(results, method, way, column) for method in results.methods)]
        for column in results.columns
        if table in column.tables
    ]
    return _table(title, ["metric", *results.methods], lines)


def _by_output(results: Results, title: str, table: str) -> str:
    """A table with a row for each method and way of editing; "" where nothing was measured."""
    columns = [column for column in results.columns if table in column.tables]
    lines = [
        [method, way, *(_cell(results, method, way, column) for column in columns)]
        for way in results.ways
        for method in results.methods
        if way != RECONSTRUCTION
    ]
    head = ["method", "editing", *(column.heading for column in columns)]
    return _table(title, head, lines) if columns and lines else ""


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"## {title}\n", *("| " + " | ".join(cells) + " |" for cells in lines)]) + "\n"


def _cell(results: Results, method: str, way: str, column: Column) -> str:
    """Mean ± deviation at the table's scale, with the number of NaNs where there are any."""
    summary = results.summary(method, way, column)
    if not summary.n + summary.nan:
        return "-"
    spread = f" ± {column.format(summary.std)}" if summary.n > 1 else ""
    return column.format(summary.mean) + spread + (f" ({summary.nan} NaN)" if summary.nan else "")


def _notes(results: Results) -> str:
    lines = ["## Definitions\n"]
    for c in results.columns:
        lines.append(f"- **{c.heading}** (`{c.name}`, {c.better} is better): {c.definition}")
    if results.absent:
        lines += ["\n## Left out\n", *(f"- `{name}`: {why}" for name, why in results.absent.items())]
    if results.problems:
        lines += [f"\n## Skipped: {len(results.problems)}\n", *(f"- {each}" for each in results.problems)]
    choices = (f"- {k}: {json.dumps(v, default=str)}" for k, v in results.choices.items())
    return "\n".join([*lines, "\n## Choices\n", *choices]) + "\n"


def contact_sheet(store: Store, rows: Sequence[Row], tile: int = TILE) -> Image.Image:
    """The pictures of one edit type, each ``tile`` pixels wide.

    A block for each picture: source and true picture, then a column for each method, a row for each way of editing.
    """
    names = list(dict.fromkeys(row.picture for row in rows))[:SHEET_PICTURES]
    ways = list(dict.fromkeys(row.editing for row in rows))
    given = [what for what in ("source", "truth") if any(store.picture(n, what).is_file() for n in names)]
    methods = list(dict.fromkeys(row.method for row in rows))
    cells: list[Image.Image | None] = []
    for name, way in product(names, ways):
        cells += [_open(store.picture(name, what)) if way == ways[0] else None for what in given]
        cells += [_open(store.picture(name, f"{method}-{way}")) for method in methods]
    labels = [f"{way}\n{name}" for name, way in product(names, ways)]
    return grid(rows[0].edit_type, labels, [*given, *methods], cells, tile)


def _open(path: Path) -> Image.Image | None:
    """A stored picture, if it is there."""
    return Image.open(path).convert("RGB") if path.is_file() else None


def write_figures(results: Results, store: Store) -> None:
    """Draws a contact sheet and a box plot for each edit type, and puts them and results.md in TensorBoard.

    An earlier run's events are replaced, not doubled.
    """
    from torch.utils.tensorboard import SummaryWriter

    kinds = sorted({row.edit_type for row in results.rows})
    drawn = {"boxes/all": boxes(results)} | {f"boxes/{kind}": boxes(results, kind) for kind in kinds}
    for kind in kinds:
        rows = [row for row in results.rows if row.edit_type == kind]
        drawn[f"sheets/{kind}"] = contact_sheet(store, rows)
    for old in store.folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(store.folder)) as writer:
        for name, picture in drawn.items():
            save_png(store.folder / f"{name}.png", picture)
            writer.add_image(name, np.asarray(picture), dataformats="HWC")
        writer.add_text("results", (store.folder / "results.md").read_text(encoding="utf-8"))
        for column, method, way in product(results.columns, results.methods, results.ways):
            summary = results.summary(method, way, column)
            if summary.n:
                writer.add_scalar(f"{column.name}/{method}-{way}", summary.mean, 0)


def boxes(results: Results, edit_type: str | None = None) -> Image.Image:
    """A box plot of the scores of one edit type, or of all."""
    ways = [way for way in results.ways if way != RECONSTRUCTION] or [RECONSTRUCTION]
    panels = {}
    for column in results.columns:
        if column.boxed:
            panels[column.heading] = {
                f"{method} {way}": [v for v in results.values(method, way, column, edit_type) if v == v]
                for method, way in product(results.methods, ways)
            }
    return box_plot(edit_type or "all edit types", panels)
