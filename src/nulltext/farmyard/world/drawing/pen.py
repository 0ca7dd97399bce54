"""The pen that draws shapes, shaded in a photo and inked in a drawing."""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from nulltext.farmyard.world.drawing.shapes import RGB, Ellipse, Outline, Point, Shape

INK: RGB = (62, 52, 60)
PAPER: RGB = (252, 248, 238)


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """Blend two colours: `share` 0 gives `a`, 1 gives `b`."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def lit(colour: RGB, gain: float) -> RGB:
    """Return the colour, lighter by a factor."""
    red, green, blue = (min(255, round(c * gain)) for c in colour)
    return red, green, blue


@functools.lru_cache(maxsize=64)
def vertical(stops: tuple[tuple[float, RGB], ...], side: int) -> Image.Image:
    """A picture (side, side) whose colour runs from stop to stop down the rows."""
    rows = (np.arange(side) + 0.5) / side
    places, colours = [y for y, _ in stops], np.array([c for _, c in stops], float)
    column = np.stack([np.interp(rows, places, colours[:, channel]) for channel in range(3)], axis=1)
    return Image.fromarray(column.round().astype(np.uint8)[:, None]).resize(
        (side, side), Image.Resampling.NEAREST
    )


class Pen:
    """Draws shapes in a figure's own coordinates: shaded in a photo, inked and flat in a drawing.

    Args:
        canvas: Where to draw.
        style: photo or drawing.
        origin: Of the figure's coordinates, in canvas widths.
        scale: Unit of the figure's coordinates, in canvas widths.
        mirrored: Whether left and right are exchanged about the origin.
    """

    def __init__(
        self,
        canvas: Image.Image,
        style: str,
        origin: Point = (0.0, 0.0),
        scale: float = 1.0,
        mirrored: bool = False,
    ) -> None:
        self.canvas, self.style = canvas, style
        self.side = canvas.width
        self.x0, self.y0, self.scale = origin[0] * self.side, origin[1] * self.side, scale * self.side
        self.across = -self.scale if mirrored else self.scale
        self.draw = ImageDraw.Draw(canvas)

    def fill(
        self,
        shapes: Sequence[Shape],
        colour: RGB | int,
        grow: float = 0.0,
        draw: ImageDraw.ImageDraw | None = None,
    ) -> None:
        """Fill shapes, grown by a part of the canvas."""
        draw = draw or self.draw
        for shape in shapes:
            if isinstance(shape, Ellipse):
                self._ellipse(draw, shape, grow * self.side, colour)
            else:
                self._path(draw, shape, grow * self.side, colour)

    def _ellipse(self, draw: ImageDraw.ImageDraw, shape: Ellipse, grow: float, colour: RGB | int) -> None:
        x, y = self.x0 + shape.x * self.across, self.y0 + shape.y * self.scale
        rx, ry = shape.rx * self.scale + grow, shape.ry * self.scale + grow
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def _path(self, draw: ImageDraw.ImageDraw, shape: Outline, grow: float, colour: RGB | int) -> None:
        points = [(self.x0 + x * self.across, self.y0 + y * self.scale) for x, y in shape.points]
        radius = shape.radius * self.scale + grow
        if shape.closed:
            draw.polygon(points, fill=colour)
            points.append(points[0])
        if radius >= 0.5:
            draw.line(points, fill=colour, width=round(2 * radius))
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def part(self, shapes: Sequence[Shape], colour: RGB, body: bool = False) -> None:
        """Draw shapes as one thing with a rim around them all; a body is lit from above."""
        if self.style == "drawing":
            self.fill(shapes, INK, grow=0.02)
            self.fill(shapes, mix(colour, PAPER, 0.2))
            return
        rim = lit(colour, 0.66) if max(colour) > 80 else mix(colour, (150, 150, 165), 0.4)
        self.fill(shapes, rim, grow=0.009)
        if not body:
            self.fill(shapes, colour)
            return
        mask = Image.new("L", self.canvas.size)
        self.fill(shapes, 255, draw=ImageDraw.Draw(mask))
        stops = ((0.2, lit(colour, 1.08)), (0.55, colour), (0.92, lit(colour, 0.76)))
        self.canvas.paste(vertical(stops, self.side), mask=mask)

    def veil(self, shapes: Sequence[Shape], colour: RGB, opacity: float) -> None:
        """Lay a see-through colour over shapes."""
        mask = Image.new("L", self.canvas.size)
        self.fill(shapes, round(255 * opacity), draw=ImageDraw.Draw(mask))
        self.canvas.paste(colour, mask=mask)
