"""What a person looks at: the contact sheet of an inversion, its curve, its heat map. Drawn with Pillow alone."""

from collections.abc import Sequence
from math import isfinite, log10

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nulltext.pictures import to_image

TILE = 288  # pixels of a picture on the sheet
GAP = 16
INK, PALE, PAPER, ACCENT, SECOND = "#1a1a1a", "#777777", "#ffffff", "#b2182b", "#2166ac"
HEAT = np.array(  # black over violet and orange to pale yellow, even steps in lightness
    [
        [0, 0, 4],
        [58, 15, 110],
        [135, 33, 107],
        [205, 66, 71],
        [246, 125, 21],
        [252, 196, 60],
        [252, 255, 164],
    ],
    dtype=np.float64,
)
FULL_DIFFERENCE = 0.25  # of the range from black to white; drawn in the palest colour


def contact_sheet(
    title: str,
    pictures: Sequence[tuple[str, Tensor]],
    before: Sequence[float],
    after: Sequence[float],
    facts: Sequence[str],
) -> Image.Image:
    """Pictures side by side, under each its difference to the first, below them the loss per timestep.

    Args:
        title: The first line.
        pictures: Label and pixels (3, H, W) in [-1, 1] of each; the first is the original.
        before: The loss of each timestep as the inner loop found it; may be empty.
        after: The loss of each timestep as it was left.
        facts: Lines of text beside the curve.
    """
    original = pictures[0][1]
    tiles = [enlarge(to_image(pixels)) for _, pixels in pictures]
    width, height = tiles[0].size
    sheet_width = max(GAP + len(pictures) * (width + GAP), 3 * TILE)
    lines = wrap(title, font_of(20), sheet_width - 2 * GAP)
    top = GAP + 28 * len(lines)
    chart_top = top + 2 * (height + 48) + GAP
    sheet = Image.new("RGB", (sheet_width, chart_top + 240 + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((GAP, GAP + 28 * number), line, INK, font_of(20))
    for column, ((label, pixels), tile) in enumerate(zip(pictures, tiles, strict=True)):
        left = GAP + column * (width + GAP)
        sheet.paste(tile, (left, top))
        draw.text((left, top + height + 6), label, INK, font_of(15))
        if column:
            difference = enlarge(difference_map(pixels, original))
            sheet.paste(difference, (left, top + height + 48))
            draw.text((left, top + 2 * height + 54), "difference to the original", PALE, font_of(13))
    _scale(draw, sheet, (GAP, top + height + 48, width))
    half = (sheet_width - 3 * GAP) // 2
    sheet.paste(curve(before, after, (half, 240)), (GAP, chart_top))
    _text(draw, facts, (2 * GAP + half, chart_top + 8), half)
    return sheet


def difference_map(pixels: Tensor, reference: Tensor) -> Image.Image:
    """Where two pictures (3, H, W) differ: the mean over colours of the absolute difference, as heat."""
    difference = (pixels.float().clamp(-1, 1) - reference.float().clamp(-1, 1)).abs().mean(
        0
    ) / 2  # (H, W) in [0, 1]
    return Image.fromarray(heat_colours(difference.cpu().numpy() / FULL_DIFFERENCE))


def heat_map(losses: Sequence[Tensor]) -> Image.Image:
    """The loss of every inner step: a row an inner step, a column a timestep, logarithmic, bright is high.

    Args:
        losses: For each timestep the losses (n,) of its inner steps; n may differ.
    """
    rows = max([1, *(len(column) for column in losses)])
    values = np.full((rows, max(1, len(losses))), np.nan)
    for index, column in enumerate(losses):
        values[: len(column), index] = column.cpu().numpy()
    low, high = _decades(values[values > 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        heat = heat_colours((np.log10(values) - low) / (high - low))
    heat[~np.isfinite(values)] = 235
    cell = max(6, 640 // values.shape[1]), max(12, 240 // rows)
    plot = Image.fromarray(heat).resize((cell[0] * values.shape[1], cell[1] * rows), Image.Resampling.NEAREST)
    image = Image.new("RGB", (plot.width + 2 * GAP + 40, plot.height + 70), PAPER)
    image.paste(plot, (GAP + 40, 30))
    draw = ImageDraw.Draw(image)
    draw.text((GAP, 6), f"loss, 1e{low:.0f} dark to 1e{high:.0f} bright", INK, font_of(14))
    draw.text((GAP, 30), "inner", PALE, font_of(13))
    draw.text((GAP, 46), f"1-{rows}", PALE, font_of(13))
    draw.text((GAP + 40, plot.height + 36), f"timestep 0 (noisiest) to {len(losses) - 1}", PALE, font_of(13))
    return image


def curve(before: Sequence[float], after: Sequence[float], size: tuple[int, int]) -> Image.Image:
    """The loss over timesteps on a logarithmic axis: as the inner loop found it, and as it was left."""
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = 60, 30, size[0] - 12, size[1] - 34
    low, high = _decades(np.array([*before, *after], dtype=np.float64))
    draw.rectangle((left, top, right, bottom), outline="#cccccc")
    for decade in range(int(low), int(high) + 1):
        y = bottom - (decade - low) / (high - low) * (bottom - top)
        draw.line((left, y, right, y), "#e5e5e5")
        draw.text((8, y - 8), f"1e{decade}", PALE, font_of(13))
    for values, colour in ((before, SECOND), (after, ACCENT)):
        points = [
            (
                left + (right - left) * index / max(1, len(values) - 1),
                bottom - (min(max(log10(value), low), high) - low) / (high - low) * (bottom - top),
            )
            for index, value in enumerate(values)
            if isfinite(value) and value > 0
        ]
        if len(points) > 1:
            draw.line(points, colour, 2, joint="curve")
        for x, y in points if len(points) < 60 else []:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), colour)
    draw.text((left, 6), "loss per timestep", INK, font_of(15))
    x = left + 150
    for label, colour in (("as found", SECOND), ("as left", ACCENT)):
        draw.text((x, 8), label, colour, font_of(13))
        x += 80
    draw.text((left, bottom + 8), "0, the noisiest", PALE, font_of(13))
    draw.text((right, bottom + 8), str(max(len(before), len(after)) - 1), PALE, font_of(13), anchor="ra")
    return image


def side_by_side(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (3, H, W) and below them their differences to the first, as one (3, 2 H, n W) in [0, 1]."""
    upper = torch.cat([(pixels.float().cpu().clamp(-1, 1) + 1) / 2 for pixels in pictures], dim=2)
    heats = [np.asarray(difference_map(pixels, pictures[0])) for pixels in pictures]
    lower = torch.from_numpy(np.concatenate(heats, axis=1)).permute(2, 0, 1) / 255
    return torch.cat([upper, lower], dim=1)


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of at most that many pixels; at most three, the last one cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
        lines[-1] = lines[-1][:-2] + "…"
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][:-1] + "…"]


def enlarge(image: Image.Image) -> Image.Image:
    """At most TILE pixels on the longer side; small pictures in whole enlarged pixels."""
    longer = max(image.size)
    if longer <= TILE // 2:
        factor = TILE // longer
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = TILE / longer
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _scale(draw: ImageDraw.ImageDraw, sheet: Image.Image, place: tuple[int, int, int]) -> None:
    """The bar that says which colour is how much, under the original."""
    left, top, width = place
    bar = Image.fromarray(heat_colours(np.tile(np.linspace(0, 1, width), (14, 1))))
    sheet.paste(bar, (left, top + 24))
    draw.text((left, top), "difference, share of full range", PALE, font_of(13))
    draw.text((left, top + 42), "0", PALE, font_of(13))
    draw.text((left + width, top + 42), f"{FULL_DIFFERENCE:.0%}", PALE, font_of(13), anchor="ra")


def _text(draw: ImageDraw.ImageDraw, lines: Sequence[str], place: tuple[int, int], width: int) -> None:
    y = place[1]
    for line in lines:
        for piece in wrap(line, font_of(15), width):
            draw.text((place[0], y), piece, INK, font_of(15))
            y += 22


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (clipped) as colours, uint8, one more axis."""
    position = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0).clip(0, 1) * (len(HEAT) - 1)
    floor = np.floor(position).astype(int).clip(0, len(HEAT) - 2)
    share = (position - floor)[..., None]
    return ((1 - share) * HEAT[floor] + share * HEAT[floor + 1]).round().astype(np.uint8)


def _decades(values: np.ndarray) -> tuple[float, float]:
    """Whole powers of ten around the positive values; at least one decade."""
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return -6.0, -5.0
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    return float(low), float(max(high, low + 1))


def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so many pixels high."""
    return ImageFont.load_default(size)
