"""The picture of a scene, and where two scenes differ."""

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nulltext.farmyard.world.animals import BODY, Figure, figure_of, hat_of
from nulltext.farmyard.world.drawing.pen import INK, Pen, lit, mix
from nulltext.farmyard.world.drawing.places import background
from nulltext.farmyard.world.drawing.shapes import RGB, Ellipse, dot
from nulltext.farmyard.world.drawing.sky import dim, draw_weather, light
from nulltext.farmyard.world.drawing.things import draw_object
from nulltext.farmyard.world.scene import Scene

_TINT = {"morning": ((0.97, 0.99, 1.03), (0.97, 0.98, 1.0)), "noon": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))}
_TINT["evening"] = ((1.02, 0.95, 0.91), (1.0, 0.96, 0.9))

_LENGTH = {None: 1.0, "small": 0.68, "big": 1.25}
"""How long an animal of each stature is, in units of its scene's `size`."""


def draw(scene: Scene, size: int = 128) -> Image.Image:
    """Draw a scene.

    Args:
        scene: The scene.
        size: Side of the square picture in pixels.

    Returns:
        An RGB picture of (size, size); the same scene and size give the same bytes.
    """
    side = size * (4 if size <= 128 else 2)
    canvas = background(scene, side)
    if scene.object:
        draw_object(Pen(canvas, scene.style), scene.object, scene.object_x)
    canvas = dim(canvas, scene)
    _draw_animal(canvas, scene)
    canvas = light(canvas, scene)
    draw_weather(Pen(canvas, "photo"), scene)
    return _tinted(canvas.resize((size, size), Image.Resampling.BOX), scene.light)


def changed_pixels(a: Scene, b: Scene, size: int = 128, threshold: float = 4.0) -> NDArray[np.bool_]:
    """Return where two scenes differ in some channel by more than `threshold` of 255: bool (size, size)."""
    difference = np.asarray(draw(a, size), np.int16) - np.asarray(draw(b, size), np.int16)
    return np.abs(difference).max(axis=2) > threshold


def _draw_animal(canvas: Image.Image, scene: Scene) -> None:
    """The animal and its hat, mirrored where it looks to the right."""
    figure, length = figure_of(scene.animal), scene.size * _LENGTH[scene.stature]
    mirrored = scene.facing == "right"
    sign = -1 if mirrored else 1

    def pen_at(x: float, y: float) -> Pen:
        return Pen(canvas, scene.style, (scene.x + sign * x * length, scene.y + y * length), length, mirrored)

    _animal(pen_at(figure.shift, 0.0), figure, BODY[scene.colour])
    if scene.hat:
        pen = pen_at(figure.shift + figure.hat[0], figure.hat[1])
        for part in hat_of(scene.hat):
            pen.part(part.shapes, part.colour)  # type: ignore[arg-type]  # a hat has its own colours


def _animal(pen: Pen, figure: Figure, body: RGB) -> None:
    if pen.style == "photo":
        pen.veil([Ellipse(0.04, -0.01, 0.4, 0.055)], (40, 40, 60), 0.32)
    dark = max(body) < 80
    shades = {"body": body, "shade": mix(body, (140, 140, 156), 0.3) if dark else lit(body, 0.78)}
    shades["pale"] = mix(body, (255, 250, 240), 0.35 if dark else 0.5)
    for part in figure.parts:
        colour = shades[part.colour] if isinstance(part.colour, str) else part.colour
        pen.part(part.shapes, colour, body=part.colour == "body")
    for x, y, r in figure.eyes:
        pen.fill([dot(x, y, r * 1.2)], INK)
        pen.fill([dot(x, y, r)], figure.iris or (255, 255, 255))
        pen.fill([dot(x - 0.2 * r, y + 0.1 * r, r * 0.66)], (34, 28, 36))
        pen.fill([dot(x + 0.1 * r, y - 0.3 * r, r * 0.26)], (255, 255, 255))


@functools.cache
def _tint(name: str, size: int) -> NDArray[np.float32]:
    """The light's gain, (size, 1, 3): from the top of the picture to its bottom."""
    top, bottom = (np.array(gain) for gain in _TINT[name])
    share = ((np.arange(size) + 0.5) / size)[:, None, None]
    return (top + (bottom - top) * share).astype(np.float32)


def _tinted(picture: Image.Image, tint: str) -> Image.Image:
    pixels = np.asarray(picture, np.float32) * _tint(tint, picture.height)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
