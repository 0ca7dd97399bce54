"""Many pictures on one page: strips of edits, grids of a sweep or of a benchmark, and box plots of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from nulltext.plots.fonts import drawable, font
from nulltext.plots.sheet import (
    DPI,
    GAP,
    LARGE,
    NORMAL,
    PALE,
    SMALL,
    TILE,
    Sheet,
    enlarge,
    height_of,
    render,
    text_width,
    wrap,
)

LONGEST = 40  # characters of a label
PANELS = 3  # box plots beside each other, at most


def strip(pictures: Sequence[tuple[str, str, Image.Image]], columns: int = 3) -> Image.Image:
    """Pictures in rows, each with a title and a text of up to three lines under it.

    Args:
        pictures: Title, text and picture of each; all pictures of one size.
        columns: Pictures in a row, at most.
    """
    tiles = [enlarge(picture) for _, _, picture in pictures]
    width, height = tiles[0].size
    across = min(columns, len(tiles))
    step = max(width, TILE) + GAP
    texts = [wrap(text, NORMAL, step - GAP) for _, text, _ in pictures]
    below = height_of([""], SMALL) + max(height_of(text, NORMAL) for text in texts) + GAP
    rows = -(-len(tiles) // across)
    sheet = Sheet(GAP + across * step, GAP + rows * (height + below + GAP))
    for k, ((title, _, _), text, tile) in enumerate(zip(pictures, texts, tiles, strict=True)):
        x, y = GAP + k % across * step, GAP + k // across * (height + below + GAP)
        sheet.picture(tile, x, y)
        sheet.text(title, x, y + height + 8, SMALL, PALE)
        sheet.text(text, x, y + height + 8 + height_of([""], SMALL), NORMAL)
    return sheet.image()


def grid(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    pictures: Sequence[Image.Image | None],
    tile: int = TILE,
) -> Image.Image:
    """A labelled grid, one picture for each row and column.

    Args:
        title: The line above.
        rows: A label for each row; a second line after a line break is drawn paler.
        columns: A label for each column.
        pictures: Row by row, all of one size; None leaves a cell empty.
        tile: Pixels of a picture's longer side, at most.
    """
    tiles = [picture and enlarge(picture, tile) for picture in pictures]
    sizes = [image.size for image in tiles if image] or [(tile, tile)]
    width, height = sizes[0]
    step = width + GAP // 2
    labels = [[wrap(line, SMALL, TILE // 2, 2) for line in row.split("\n")[:2]] for row in rows]
    widest = max([text_width(line, SMALL) for parts in labels for part in parts for line in part], default=0)
    left = GAP + round(widest) + GAP
    heads = [wrap(column, SMALL, width, 2) for column in columns]
    sheet_width = max(left + len(columns) * step + GAP // 2, left + TILE)
    lines = wrap(title, LARGE, sheet_width - 2 * GAP) if title else []
    top = GAP + height_of(lines, LARGE) + max((height_of(head, SMALL) for head in heads), default=0)
    sheet = Sheet(sheet_width, top + len(rows) * (height + GAP // 2) + GAP // 2)
    sheet.text(lines, GAP, GAP, LARGE)
    for x, head in enumerate(heads):
        sheet.text(head, left + x * step, top - 4 - height_of(head, SMALL), SMALL)
    for y, parts in enumerate(labels):
        row_top = top + y * (height + GAP // 2)
        sheet.text(parts[0], GAP, row_top, SMALL)
        for part in parts[1:]:
            sheet.text(part, GAP, row_top + height_of(parts[0], SMALL), SMALL, PALE)
    for k, image in enumerate(tiles):
        x, y = k % len(columns), k // len(columns)
        if image:
            sheet.picture(image, left + x * step, top + y * (height + GAP // 2))
    return sheet.image()


def box_plot(title: str, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """A panel for each score, in it a box for each way to make pictures; triangles are means.

    Args:
        title: The line above.
        panels: By the score's heading, by the label of a box, the values without NaN; all panels have the same boxes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across, down = min(PANELS, len(panels)), -(-len(panels) // PANELS)
    boxes = max(len(panel) for panel in panels.values())
    figure = Figure(
        figsize=(4.2 * across + 1, (0.32 * boxes + 1) * down + 0.4), dpi=DPI, layout="constrained"
    )
    FigureCanvasAgg(figure)
    figure.suptitle("").update(_said(title, 14))
    for number, (heading, values) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, number + 1)
        axes.boxplot(list(values.values()), orientation="horizontal", showmeans=True)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_title("").update(_said(heading, 12))
        said = [
            _said("" if number % across else name, 11) for name in values
        ]  # at the left of a row of panels
        labels = axes.set_yticklabels([each["text"] for each in said])
        for label, properties in zip(labels, said, strict=True):
            label.update(properties)
    return render(figure)


def _said(text: str, size: int) -> dict[str, Any]:
    """A text as matplotlib's properties: short enough for one line, dollars no formula."""
    shown = drawable(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return {"text": shown, "fontproperties": font(shown, size), "parse_math": False}
