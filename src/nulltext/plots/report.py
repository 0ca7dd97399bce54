"""The report of an inversion: its pictures, where they differ from the original, its losses, its facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from nulltext.pixels import to_image
from nulltext.plots.heat import FULL_DIFFERENCE, difference_map, heat_colours
from nulltext.plots.sheet import (
    ACCENT,
    GAP,
    LARGE,
    NORMAL,
    PALE,
    SECOND,
    SMALL,
    TILE,
    Sheet,
    enlarge,
    height_of,
    points,
    wrap,
)

CURVES = 420  # pixels of their height


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
    _scale(sheet, GAP, second, max(width, TILE))
    half = (sheet_width - 3 * GAP) // 2
    _curves(sheet.axes(6 * GAP, curves + 50, half - 6 * GAP, CURVES - 130), before, after)
    sheet.text("loss of each timestep", 6 * GAP, curves + 14, NORMAL)
    room = [piece for fact in facts for piece in wrap(fact, NORMAL, half - GAP)]
    sheet.text(room, 2 * GAP + half, curves + 50, NORMAL)
    return sheet.image()


def _scale(sheet: Sheet, left: int, top: int, width: int) -> None:
    """Which colour is how large a difference."""
    sheet.text("difference, of the full range", left, top, SMALL, PALE)
    sheet.picture(Image.fromarray(heat_colours(np.tile(np.linspace(0, 1, width), (18, 1)))), left, top + 30)
    sheet.text("0", left, top + 54, SMALL, PALE)
    sheet.text(f"{FULL_DIFFERENCE:.0%} and more", left + width, top + 54, SMALL, PALE, align="right")


def _curves(axes: Any, before: Sequence[float], after: Sequence[float]) -> None:
    """Loss over timesteps on a logarithmic axis."""
    for values, colour, label in ((before, SECOND, "before its inner steps"), (after, ACCENT, "after them")):
        shown = [value if value > 0 else np.nan for value in values]
        if np.isfinite(shown).any():
            marker = "o" if len(shown) < 60 else None
            axes.plot(shown, color=colour, marker=marker, markersize=4, label=label)
    if axes.lines:
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.legend(fontsize=points(SMALL), frameon=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.set_xlabel("timestep, 0 the noisiest", fontsize=points(SMALL), color=PALE)
