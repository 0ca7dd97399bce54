"""What everything on the farm is made of: ellipses, polygons and strokes, and parts that are one thing.

Coordinates are parts of the picture's width, y down. An animal is drawn about its own origin, the middle of
its feet, in units of its length; it looks to the left, and `Pen` mirrors one that looks to the right.
"""

from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse about (x, y)."""

    x: float
    y: float
    rx: float
    ry: float


@dataclass(frozen=True)
class Outline:
    """A polygon (closed) or a stroke (open) with round corners of a radius."""

    points: tuple[Point, ...]
    radius: float = 0.0
    closed: bool = False


Shape = Ellipse | Outline


def dot(x: float, y: float, r: float) -> Ellipse:
    """A disc."""
    return Ellipse(x, y, r, r)


def limb(*points: Point, r: float) -> Outline:
    """A stroke from point to point, 2 r thick."""
    return Outline(points, r)


def patch(*points: Point, r: float = 0.0) -> Outline:
    """A polygon, its corners rounded by r."""
    return Outline(points, r, closed=True)


def bend(*points: Point, r: float) -> Outline:
    """A stroke along the Catmull-Rom curve through the points."""
    p = np.array([points[0], *points, points[-1]])
    t = np.linspace(0, 1, 7)[:-1, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    curve = np.concatenate([*pieces, p[-1:]])
    return Outline(tuple((float(x), float(y)) for x, y in curve), r)


@dataclass(frozen=True)
class Part:
    """Shapes with one outline and one colour: an RGB, or the body's own in one of three shades."""

    colour: RGB | str  # "body", "shade" or "pale" follow the animal's colour
    shapes: tuple[Shape, ...]


def part(colour: RGB | str, *shapes: Shape) -> Part:
    """A part of some shapes."""
    return Part(colour, shapes)
