"""Pages of pictures: the report of an inversion, strips of edits, grids of a sweep, and box plots of scores."""

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
    INK,
    LARGE,
    NORMAL,
    PALE,
    SMALL,
    TILE,
    Sheet,
    enlarge,
    points,
    render,
    text_width,
)

CURVES = 290  # pixels of their height
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
    step = max(tiles[0].width, TILE) + GAP
    sheet = Sheet(max(GAP + len(pictures) * step, 3 * TILE))
    lefts = [GAP + column * step for column in range(len(pictures))]
    top = sheet.text(title, GAP, GAP, LARGE, width=sheet.width - 2 * GAP) + 8
    upper = zip(lefts, tiles, pictures, strict=True)
    top = max(sheet.tile(tile, left, top, (label, NORMAL, INK)) for left, tile, (label, _) in upper) + 20
    scale = heat_colours(np.tile(np.linspace(0, 1, step - GAP), (18, 1)))
    palest = f"difference, of the full range: black 0, palest {FULL_DIFFERENCE:.0%} and more"
    bottom = sheet.tile(Image.fromarray(scale), GAP, top, (palest, SMALL, PALE))
    for left, (_, pixels) in zip(lefts[1:], pictures[1:], strict=True):
        heat = enlarge(difference_map(pixels, pictures[0][1]))
        bottom = max(bottom, sheet.tile(heat, left, top, ("difference to the original", SMALL, PALE)))
    half, right = (sheet.width - 3 * GAP) // 2, sheet.width // 2
    top = sheet.text("loss of each timestep", 6 * GAP, bottom + 2 * GAP) + 8
    place = (6 * GAP, top, half - 6 * GAP, CURVES)
    bottom = sheet.axes(*place, lambda axes: _curves(axes, before, after))
    sheet.text("timestep, 0 the noisiest", 6 * GAP, bottom + 2 * GAP, SMALL, PALE)
    for fact in facts:
        top = sheet.text(fact, right, top, width=half - GAP)
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


def strip(pictures: Sequence[tuple[str, str, Image.Image]], columns: int = 3) -> Image.Image:
    """Pictures of one size in rows, each with a title and a text of up to three lines under it."""
    tiles = [enlarge(picture) for _, _, picture in pictures]
    across, step = min(columns, len(tiles)), max(tiles[0].width, TILE) + GAP
    sheet, top, bottom = Sheet(GAP + across * step), 0, 0
    for k, ((title, text, _), tile) in enumerate(zip(pictures, tiles, strict=True)):
        top = bottom + GAP if k % across == 0 else top
        below = sheet.tile(tile, GAP + k % across * step, top, (title, SMALL, PALE), (text, NORMAL, INK))
        bottom = max(bottom, below)
    return sheet.image()


def grid(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    pictures: Sequence[Image.Image | None],
    tile: int = TILE,
) -> Image.Image:
    """Pictures of one size row by row, ``tile`` pixels on the longer side at most; None leaves a cell empty.

    The second line of a row's label is drawn paler.
    """
    tiles = [picture and enlarge(picture, tile) for picture in pictures]
    width, height = next((image.size for image in tiles if image), (tile, tile))
    step = width + GAP // 2
    labels = [row.split("\n")[:2] for row in rows]
    widest = max((text_width(drawable(line), SMALL) for lines in labels for line in lines), default=0)
    room = min(int(widest) + 1, TILE // 2)
    left = 2 * GAP + room
    sheet = Sheet(max(left + len(columns) * step + GAP // 2, left + TILE))
    top = sheet.text(title, GAP, GAP, LARGE, width=sheet.width - 2 * GAP) if title else GAP
    heads = [sheet.text(head, left + x * step, top, SMALL, width=width) for x, head in enumerate(columns)]
    top = max(heads, default=top) + 4
    for y, lines in enumerate(labels):
        below = top + y * (height + GAP // 2)
        for line, colour in zip(lines, (INK, PALE), strict=False):
            below = sheet.text(line, GAP, below, SMALL, colour, room)
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
