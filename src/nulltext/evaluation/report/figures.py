"""Contact sheets and box plots of a benchmark, also in TensorBoard."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from nulltext.evaluation.results import RECONSTRUCTION, Results, Row, Store
from nulltext.pixels import save_png
from nulltext.plots import box_plot, grid

SHEET_PICTURES = 8  # of one type on its contact sheet, at most
TILE = 192  # pixels of a picture on a sheet


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
                f"{method} {way}": [
                    v for v in results.by_picture(method, way, column, edit_type).values() if v == v
                ]
                for method, way in product(results.methods, ways)
            }
    return box_plot(edit_type or "all edit types", panels)
