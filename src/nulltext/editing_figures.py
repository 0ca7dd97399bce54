"""Edits to look at: strips with their prompts under them, grids of a sweep, attention over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from nulltext.pictures import to_image
from nulltext.report import GAP, INK, PALE, PAPER, enlarge, font_of, heat_colours, wrap

LINE = 20  # pixels from one line of text to the next


def strip(pictures: Sequence[tuple[str, str, Image.Image]], columns: int = 6) -> Image.Image:
    """Pictures in rows, each with a title and a text of up to three lines under it.

    Args:
        pictures: Title, text and picture; all pictures of one size.
        columns: Pictures in a row, at most.
    """
    tiles = [(title, text, enlarge(picture)) for title, text, picture in pictures]
    width, height = tiles[0][2].size
    across = min(columns, len(tiles))
    cell = (width + GAP, height + 4 * LINE + GAP + 8)
    rows = -(-len(tiles) // across)
    sheet = Image.new("RGB", (GAP + across * cell[0], GAP + rows * cell[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    for k, (title, text, tile) in enumerate(tiles):
        x, y = GAP + k % across * cell[0], GAP + k // across * cell[1]
        sheet.paste(tile, (x, y))
        pen.text((x, y + height + 6), title, PALE, font_of(13))
        for n, line in enumerate(wrap(text, font_of(15), width)):
            pen.text((x, y + height + 6 + (n + 1) * LINE), line, INK, font_of(15))
    return sheet


def grid(
    title: str, rows: Sequence[str], columns: Sequence[str], pictures: Sequence[Image.Image]
) -> Image.Image:
    """A labelled grid, one picture for each row and column.

    Args:
        title: The line above.
        rows: A label for each row.
        columns: A label for each column.
        pictures: Row by row; all of one size.
    """
    tiles = [enlarge(picture) for picture in pictures]
    width, height = tiles[0].size
    left = GAP + round(max(font_of(15).getlength(label) for label in rows)) + GAP
    sheet_width = left + len(columns) * (width + GAP)
    lines = wrap(title, font_of(18), sheet_width - 2 * GAP)
    top = GAP + 26 * len(lines) + LINE + 6
    sheet = Image.new("RGB", (sheet_width, top + len(rows) * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        pen.text((GAP, GAP + 26 * n), line, INK, font_of(18))
    for x, label in enumerate(columns):
        pen.text((left + x * (width + GAP), top - LINE - 2), label, PALE, font_of(15))
    for y, label in enumerate(rows):
        pen.text((GAP, top + y * (height + GAP) + height // 2), label, PALE, font_of(15))
    for k, tile in enumerate(tiles):
        x, y = k % len(columns), k // len(columns)
        sheet.paste(tile, (left + x * (width + GAP), top + y * (height + GAP)))
    return sheet


def heat_over(pixels: Tensor, attention: Tensor) -> Image.Image:
    """Where a word is looked at, as heat over a faint picture.

    Args:
        pixels: The picture (3, H, W) in [-1, 1].
        attention: The word's map (h, w); shown from its lowest to its highest value.
    """
    span = (attention - attention.min()) / (attention.max() - attention.min()).clamp(min=1e-12)
    fine = F.interpolate(span[None, None], size=pixels.shape[-2:], mode="bicubic")[0, 0].clamp(0, 1)
    heat = Image.fromarray(heat_colours(fine.numpy()))
    return Image.blend(to_image(pixels), heat, 0.6)
