"""A benchmark to look at: contact sheets and box plots per edit type, and the same in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nulltext.evaluation_results import RECONSTRUCTION, TITLES, Results, Row, Store
from nulltext.files import write_atomically

SHEET_PICTURES = 8
"""Pictures of one type on its contact sheet, at most."""

GAP = 2
"""Pixels between the tiles of a contact sheet."""

BOX_METRICS = (
    "background_psnr",
    "ssim",
    "clip_image_target",
    "clip_text_target",
    "counterfactual_psnr",
    "counterfactual_psnr_inside",
)


def contact_sheet(store: Store, rows: Sequence[Row], tile: int = 128) -> Image.Image:
    """A block a picture: source and true answer (where known), then a column a method and a row a way of editing.

    Args:
        store: Where the pictures lie.
        rows: The rows of one edit type.
        tile: Side of one picture on the sheet in pixels.
    """
    names = list(dict.fromkeys(row.picture for row in rows))[:SHEET_PICTURES]
    ways = list(dict.fromkeys(row.editing for row in rows))
    givens = [c for c in ("source", "truth") if any(store.picture(name, c).is_file() for name in names)]
    columns = [*givens, *dict.fromkeys(row.method for row in rows)]
    head, margin, step = 14, 100, tile + GAP
    block = len(ways) * step + 8
    sheet = Image.new("RGB", (margin + len(columns) * step, head + len(names) * block), "white")
    pen = ImageDraw.Draw(sheet)
    for x, column in enumerate(columns):
        pen.text((margin + x * step + 2, 1), column, fill="black")
    for y, name in enumerate(names):
        for z, way in enumerate(ways):
            top = head + y * block + z * step
            pen.text((2, top + 2), way, fill="black")
            pen.text((2, top + 14), name[:16], fill=(110, 110, 110))
            for x, column in enumerate(columns):
                if column not in givens:
                    _paste(sheet, store.picture(name, f"{column}-{way}"), (margin + x * step, top), tile)
                elif z == 0:
                    _paste(sheet, store.picture(name, column), (margin + x * step, top), tile)
    return sheet


def _paste(sheet: Image.Image, path: Path, corner: tuple[int, int], tile: int) -> None:
    """Put a stored picture on a sheet, if it is there."""
    if path.is_file():
        with Image.open(path) as picture:
            way = Image.Resampling.NEAREST if picture.width < tile else Image.Resampling.BOX
            sheet.paste(picture.resize((tile, tile), way), corner)


def box_plot(results: Results, rows: Sequence[Row], title: str, path: Path) -> bool:
    """A panel a metric, a box a method and way of editing; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    metrics = [m for m in BOX_METRICS if m in results.metrics]
    ways = [way for way in results.ways if way != RECONSTRUCTION] or [RECONSTRUCTION]
    figure = Figure(figsize=(4.2 * min(3, len(metrics)), 3.4 * -(-len(metrics) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for i, metric in enumerate(metrics):
        axes = figure.add_subplot(-(-len(metrics) // 3), min(3, len(metrics)), i + 1)
        boxes = {
            f"{method}\n{way.replace('_', ' ')}": _known(rows, method, way, metric)
            for method in results.methods
            for way in ways
        }
        axes.boxplot(list(boxes.values()), tick_labels=list(boxes), showmeans=True)
        axes.set_title(TITLES[metric], fontsize=9)
        axes.tick_params(axis="x", labelrotation=90, labelsize=6)
        axes.grid(axis="y", alpha=0.3)
    write_atomically(path, lambda p: figure.savefig(p, dpi=110, format="png"))
    return True


def _known(rows: Sequence[Row], method: str, way: str, metric: str) -> list[float]:
    """The values of one box, NaNs left out."""
    values = [row.value(metric) for row in rows if (row.method, row.editing) == (method, way)]
    return [v for v in values if v is not None and v == v]


def write_figures(results: Results, store: Store) -> list[str]:
    """Draw a contact sheet and a box plot per edit type, put them and results.md in TensorBoard.

    Returns:
        What could not be drawn, and why.
    """
    kinds = sorted({row.edit_type for row in results.rows})
    drawn = True
    for kind in kinds:
        rows = [row for row in results.rows if row.edit_type == kind]
        sheet = contact_sheet(store, rows)
        write_atomically(store.folder / "sheets" / f"{kind}.png", partial(sheet.save, format="PNG"))
        drawn &= box_plot(results, rows, kind, store.folder / "boxes" / f"{kind}.png")
    drawn &= box_plot(results, results.rows, "all edit types", store.folder / "boxes" / "all.png")
    _to_tensorboard(results, store.folder)
    return [] if drawn else ["box plots: matplotlib is not installed (pip install 'nulltext[eval]')"]


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
        for metric in results.metrics:
            for way in results.ways:
                for method in results.methods:
                    summary = results.summary(method, way, metric)
                    if summary.n:
                        writer.add_scalar(f"{metric}/{method}-{way}", summary.mean, 0)
