"""What lies behind an animal: a tree, a fence, a barn, ..."""

import math
from collections.abc import Callable

from nulltext.farmyard.world.drawing.pen import PAPER, Pen, mix
from nulltext.farmyard.world.drawing.shapes import Ellipse, dot, limb, patch


def draw_object(pen: Pen, name: str, x: float) -> None:
    """Draw an object whose foot is at (x, 0.7)."""
    THINGS[name](pen, x)


def _tree(pen: Pen, x: float) -> None:
    pen.part([limb((x, 0.7), (x, 0.42), r=0.034)], (124, 84, 56))
    crown = [dot(x, 0.2, 0.13), dot(x - 0.1, 0.3, 0.11), dot(x + 0.1, 0.3, 0.11), dot(x, 0.34, 0.1)]
    pen.part(crown, (92, 190, 70), body=True)


def _fence(pen: Pen, x: float) -> None:
    rails = [limb((-0.1, y), (1.1, y), r=0.021) for y in (0.54, 0.64)]
    first = x % 0.19 - 0.19
    posts = [
        patch((p, 0.72), (p, 0.5), (p + 0.032, 0.46), (p + 0.064, 0.5), (p + 0.064, 0.72))
        for p in (first + 0.19 * k for k in range(7))
    ]
    pen.part([*rails, *posts], (196, 140, 92))


def _barn(pen: Pen, x: float) -> None:
    walls = patch((x - 0.19, 0.72), (x - 0.19, 0.4), (x, 0.2), (x + 0.19, 0.4), (x + 0.19, 0.72))
    pen.part([walls], (196, 58, 48))
    pen.part([limb((x - 0.22, 0.41), (x, 0.19), (x + 0.22, 0.41), r=0.03)], (92, 80, 88))
    window = patch((x - 0.06, 0.42), (x + 0.06, 0.42), (x + 0.06, 0.32), (x - 0.06, 0.32))
    pen.part([window], (250, 238, 214))


def _haystack(pen: Pen, x: float) -> None:
    base = patch((x - 0.18, 0.52), (x + 0.18, 0.52), (x + 0.19, 0.7), (x - 0.19, 0.7), r=0.015)
    pen.part([Ellipse(x, 0.52, 0.195, 0.2), base], (238, 198, 70), body=True)
    straws = [
        limb((x - 0.08, 0.5), (x - 0.03, 0.42), r=0.013),
        limb((x + 0.05, 0.56), (x + 0.09, 0.48), r=0.013),
    ]
    pen.fill(straws, mix((196, 146, 40), PAPER, 0.2 if pen.style == "drawing" else 0.0))


def _windmill(pen: Pen, x: float) -> None:
    tower = patch((x - 0.12, 0.72), (x - 0.075, 0.3), (x + 0.075, 0.3), (x + 0.12, 0.72))
    pen.part([tower], (236, 232, 226), body=True)
    pen.part([patch((x - 0.095, 0.31), (x, 0.2), (x + 0.095, 0.31), r=0.015)], (170, 70, 56))
    pen.part([patch((x - 0.035, 0.72), (x - 0.035, 0.6), (x + 0.035, 0.6), (x + 0.035, 0.72))], (122, 86, 62))
    for quarter in range(4):
        c, s = (f(math.pi * (quarter / 2 + 0.25)) for f in (math.cos, math.sin))
        sail = [(0.03, -0.005), (0.19, -0.005), (0.19, 0.06), (0.05, 0.06)]
        pen.part([patch(*((x + u * c - v * s, 0.3 + u * s + v * c) for u, v in sail))], (250, 226, 150))
    pen.part([dot(x, 0.3, 0.024)], (92, 72, 62))


def _tractor(pen: Pen, x: float) -> None:
    green, dark = (44, 140, 66), (58, 54, 62)
    pen.part([limb((x - 0.15, 0.44), (x - 0.15, 0.32), r=0.014)], dark)
    pen.part([patch((x - 0.23, 0.62), (x - 0.23, 0.45), (x, 0.45), (x, 0.62), r=0.015)], green)
    pen.part([patch((x - 0.03, 0.62), (x - 0.03, 0.27), (x + 0.16, 0.27), (x + 0.16, 0.62), r=0.012)], green)
    glass = patch((x, 0.45), (x, 0.32), (x + 0.13, 0.32), (x + 0.13, 0.45), r=0.005)
    pen.part([glass], (190, 226, 244))
    pen.part([limb((x - 0.05, 0.265), (x + 0.18, 0.265), r=0.022)], (250, 206, 60))
    for wheel, radius in ((x + 0.1, 0.155), (x - 0.19, 0.095)):
        pen.part([dot(wheel, 0.72 - radius, radius)], dark)
        pen.part([dot(wheel, 0.72 - radius, 0.45 * radius)], (250, 206, 60))


def _cactus(pen: Pen, x: float) -> None:
    arms = [
        limb((x, 0.7), (x, 0.26), r=0.062),
        limb((x, 0.56), (x - 0.14, 0.56), (x - 0.14, 0.38), r=0.044),
        limb((x, 0.48), (x + 0.14, 0.48), (x + 0.14, 0.3), r=0.044),
    ]
    pen.part(arms, (48, 132, 88), body=True)
    pen.part([dot(x, 0.19, 0.03), dot(x - 0.035, 0.215, 0.026), dot(x + 0.035, 0.215, 0.026)], (246, 96, 150))


def _snowman(pen: Pen, x: float) -> None:
    white = (244, 248, 255)
    for y, radius in ((0.6, 0.14), (0.41, 0.108), (0.26, 0.078)):
        pen.part([dot(x, y, radius)], white, body=True)
    sticks = [limb((x + 0.09, 0.4), (x + 0.2, 0.3), r=0.012), limb((x - 0.09, 0.4), (x - 0.2, 0.3), r=0.012)]
    pen.part(sticks, (104, 76, 58))
    scarf = [
        limb((x - 0.07, 0.33), (x + 0.07, 0.33), r=0.024),
        limb((x + 0.05, 0.34), (x + 0.07, 0.44), r=0.022),
    ]
    pen.part(scarf, (210, 44, 60))
    pen.part([patch((x - 0.01, 0.245), (x - 0.13, 0.275), (x - 0.01, 0.28), r=0.006)], (246, 140, 40))
    coal = (44, 42, 50)
    pen.fill([dot(x - 0.03, 0.235, 0.013), dot(x + 0.03, 0.235, 0.013)], coal)
    pen.fill([dot(x, y, 0.013) for y in (0.39, 0.44)], coal)
    pen.part([limb((x - 0.085, 0.185), (x + 0.085, 0.185), r=0.012)], coal)
    pen.part([patch((x - 0.05, 0.18), (x - 0.05, 0.11), (x + 0.05, 0.11), (x + 0.05, 0.18), r=0.008)], coal)


THINGS: dict[str, Callable[[Pen, float], None]] = {
    "tree": _tree,
    "fence": _fence,
    "barn": _barn,
    "haystack": _haystack,
    "windmill": _windmill,
    "tractor": _tractor,
    "cactus": _cactus,
    "snowman": _snowman,
}
"""What draws each object."""
