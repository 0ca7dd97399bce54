"""Pages of pictures: the report of an inversion, strips of edits, grids of a sweep, and box plots of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from nulltext.pixels import to_image
from nulltext.plots.fonts import drawable, font
from nulltext.plots.heat import FULL_DIFFERENCE, difference_map, heat_colours
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
    points,
    render,
    text_width,
    wrap,
)

CURVES = 420  # pixels of their height
LONGEST = 40  # characters of a label
PANELS = 3  # box plots beside each other, at most


def report(
    title: str,
    pictures: Sequence[tuple[str, Tensor]],
    before: Sequence[float],
    after: Sequence[float],
    facts: Sequence[str],
) -> Image.Image:
    """Pictures side by side, under each its difference to the first, below them the loss of each timestep.

    Args:
        title: The first line.
        pictures: Label and pixels (3, H, W) in [-1, 1] of each; the first is the original.
        before: The loss of each timestep before its inner steps; may be empty.
        after: The loss of each timestep after them.
        facts: Lines of text beside the curves.
    """
    tiles = [enlarge(to_image(pixels)) for _, pixels in pictures]
    width, height = tiles[0].size
    step = max(width, TILE) + GAP
    sheet_width = max(GAP + len(pictures) * step, 3 * TILE)
    lines = wrap(title, LARGE, sheet_width - 2 * GAP)
    labels = [wrap(label, NORMAL, step - GAP) for label, _ in pictures]
    top = GAP + height_of(lines, LARGE) + 8
    second = top + height + max(height_of(label, NORMAL) for label in labels) + 20
    curves = second + height + 3 * GAP + SMALL
    sheet = Sheet(sheet_width, curves + CURVES)
    sheet.text(lines, GAP, GAP, LARGE)
    for column, (tile, label, (_, pixels)) in enumerate(zip(tiles, labels, pictures, strict=True)):
        left = GAP + column * step
        sheet.picture(tile, left, top)
        sheet.text(label, left, top + height + 8, NORMAL)
        if column:
            sheet.picture(enlarge(difference_map(pixels, pictures[0][1])), left, second)
            sheet.text("difference to the original", left, second + height + 8, SMALL, PALE)
    right = GAP + max(width, TILE)
    scale = heat_colours(np.tile(np.linspace(0, 1, right - GAP), (18, 1)))
    sheet.text("difference, of the full range", GAP, second, SMALL, PALE)
    sheet.picture(Image.fromarray(scale), GAP, second + 30)
    sheet.text("0", GAP, second + 54, SMALL, PALE)
    sheet.text(f"{FULL_DIFFERENCE:.0%} and more", right, second + 54, SMALL, PALE, align="right")
    half = (sheet_width - 3 * GAP) // 2
    _curves(sheet.axes(6 * GAP, curves + 50, half - 6 * GAP, CURVES - 130), before, after)
    sheet.text("loss of each timestep", 6 * GAP, curves + 14, NORMAL)
    room = [piece for fact in facts for piece in wrap(fact, NORMAL, half - GAP)]
    sheet.text(room, 2 * GAP + half, curves + 50, NORMAL)
    return sheet.image()


def _curves(axes: Any, before: Sequence[float], after: Sequence[float]) -> None:
    """Loss over timesteps on a logarithmic axis."""
    for values, colour, label in (
        (before, "#2166ac", "before its inner steps"),
        (after, "#b2182b", "after them"),
    ):
        shown = [value if value > 0 else np.nan for value in values]
        if np.isfinite(shown).any():
            marker = "o" if len(shown) < 60 else None
            axes.plot(shown, color=colour, marker=marker, markersize=4, label=label)
    if axes.lines:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.legend(fontsize=points(SMALL), frameon=False)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.set_xlabel("timestep, 0 the noisiest", fontsize=points(SMALL), color=PALE)


def strip(pictures: Sequence[tuple[str, str, Image.Image]], columns: int = 3) -> Image.Image:
    """Pictures of one size in rows, each with a title and a text of up to three lines under it."""
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
    width, height = next((image.size for image in tiles if image), (tile, tile))
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
        y, x = divmod(k, len(columns))
        if image:
            sheet.picture(image, left + x * step, top + y * (height + GAP // 2))
    return sheet.image()


def box_plot(title: str, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Image.Image:
    """A panel for each score, in it a box for each way to make pictures; triangles are means.

    ``panels`` has the values without NaN by the score's heading and the label of a box; all have the same boxes.
    """
    from matplotlib.figure import Figure

    across, down = min(PANELS, len(panels)), -(-len(panels) // PANELS)
    boxes = max(len(panel) for panel in panels.values())
    figure = Figure(
        figsize=(4.2 * across + 1, (0.32 * boxes + 1) * down + 0.4), dpi=DPI, layout="constrained"
    )
    figure.suptitle("").update(_said(title, 14))
    for number, (heading, values) in enumerate(panels.items()):
        axes = figure.add_subplot(down, across, number + 1)
        axes.boxplot(list(values.values()), orientation="horizontal", showmeans=True)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_title("").update(_said(heading, 12))
        # labels are at the left of a row of panels
        said = [_said("" if number % across else name, 11) for name in values]
        labels = axes.set_yticklabels([each["text"] for each in said])
        for label, properties in zip(labels, said, strict=True):
            label.update(properties)
    return render(figure)


def _said(text: str, size: int) -> dict[str, Any]:
    """A text as matplotlib's properties: short enough for one line, dollars no formula."""
    shown = drawable(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
    return {"text": shown, "fontproperties": font(shown, size), "parse_math": False}
