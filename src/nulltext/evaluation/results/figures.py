"""A benchmark to look at: contact sheets and box plots for each edit type, and the same in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nulltext.evaluation.results.rows import RECONSTRUCTION, Results, Row
from nulltext.evaluation.results.store import Store
from nulltext.pixels import save_png
from nulltext.plots import box_plot, grid

SHEET_PICTURES = 8  # of one type on its contact sheet, at most
TILE = 192  # pixels of a picture on a sheet


def contact_sheet(store: Store, rows: Sequence[Row], tile: int = TILE) -> Image.Image:
    """A block for each picture: source and true picture, then a column for each method, a row for each way of editing.

    Args:
        store: Where the pictures are.
        rows: The rows of one edit type.
        tile: Side of one picture on the sheet in pixels.
    """
    names = list(dict.fromkeys(row.picture for row in rows))[:SHEET_PICTURES]
    ways = list(dict.fromkeys(row.editing for row in rows))
    given = [what for what in ("source", "truth") if any(store.picture(n, what).is_file() for n in names)]
    methods = list(dict.fromkeys(row.method for row in rows))
    cells: list[Image.Image | None] = []
    for name in names:
        for way in ways:
            cells += [_open(store.picture(name, what)) if way == ways[0] else None for what in given]
            cells += [_open(store.picture(name, f"{method}-{way}")) for method in methods]
    labels = [f"{way}\n{name}" for name in names for way in ways]
    return grid(rows[0].edit_type, labels, [*given, *methods], cells, tile)


def _open(path: Path) -> Image.Image | None:
    """A stored picture, if it is there."""
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        return picture.convert("RGB")


def write_figures(results: Results, store: Store) -> None:
    """Draws a contact sheet and a box plot for each edit type, and puts them and results.md in TensorBoard."""
    kinds = sorted({row.edit_type for row in results.rows})
    for kind in kinds:
        rows = [row for row in results.rows if row.edit_type == kind]
        save_png(store.folder / "sheets" / f"{kind}.png", contact_sheet(store, rows))
        save_png(store.folder / "boxes" / f"{kind}.png", boxes(results, kind))
    save_png(store.folder / "boxes" / "all.png", boxes(results))
    _to_tensorboard(results, store.folder)


def boxes(results: Results, edit_type: str | None = None) -> Image.Image:
    """A box plot of the scores of one edit type, or of all."""
    ways = [way for way in results.ways if way != RECONSTRUCTION] or [RECONSTRUCTION]
    panels = {
        column.heading: {
            f"{method} {way}": [v for v in results.values(method, way, column, edit_type) if v == v]
            for method in results.methods
            for way in ways
        }
        for column in results.columns
        if column.boxed
    }
    return box_plot(edit_type or "all edit types", panels)


def _to_tensorboard(results: Results, folder: Path) -> None:
    """Sheets, box plots, tables and means; an earlier run's events are replaced, not doubled."""
    from torch.utils.tensorboard import SummaryWriter

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for kind in ("sheets", "boxes"):
            for path in sorted((folder / kind).glob("*.png")):
                with Image.open(path) as picture:
                    writer.add_image(
                        f"{kind}/{path.stem}", np.asarray(picture.convert("RGB")), dataformats="HWC"
                    )
        writer.add_text("results", (folder / "results.md").read_text(encoding="utf-8"))
        for column in results.columns:
            for way in results.ways:
                for method in results.methods:
                    summary = results.summary(method, way, column)
                    if summary.n:
                        writer.add_scalar(f"{column.name}/{method}-{way}", summary.mean, 0)
