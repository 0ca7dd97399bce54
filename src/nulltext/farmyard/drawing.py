"""The picture of a scene, and where two scenes differ."""

import functools

import numpy as np
from PIL import Image

from nulltext.farmyard.animals import BODY, Figure, figure_of, hat_of
from nulltext.farmyard.pen import INK, Pen, lit, mix
from nulltext.farmyard.places import background, draw_object
from nulltext.farmyard.scene import Scene
from nulltext.farmyard.shapes import RGB, Ellipse, dot

_TINT = {"morning": ((0.97, 0.99, 1.03), (0.97, 0.98, 1.0)), "noon": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))}
_TINT["evening"] = ((1.02, 0.95, 0.91), (1.0, 0.96, 0.9))


def draw(scene: Scene, size: int = 64) -> Image.Image:
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
    figure = figure_of(scene.animal)
    pen = Pen(canvas, scene.style, (scene.x + figure.shift * scene.size, scene.y), scene.size)
    _animal(pen, figure, BODY[scene.colour])
    if scene.hat:
        top = (scene.x + (figure.shift + figure.hat[0]) * scene.size, scene.y + figure.hat[1] * scene.size)
        hat_pen = Pen(canvas, scene.style, top, scene.size)
        for part in hat_of(scene.hat):
            hat_pen.part(part.shapes, part.colour)  # type: ignore[arg-type]  # a hat has its own colours
    return _tinted(canvas.resize((size, size), Image.Resampling.BOX), scene.light)


def changed_pixels(a: Scene, b: Scene, size: int = 64, threshold: float = 4.0) -> np.ndarray:
    """Return where two scenes differ in some channel by more than `threshold` of 255: bool (size, size)."""
    difference = np.asarray(draw(a, size), np.int16) - np.asarray(draw(b, size), np.int16)
    return np.abs(difference).max(axis=2) > threshold


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
def _tint(light: str, size: int) -> np.ndarray:
    """The light's gain, (size, 1, 3): from the top of the picture to its bottom."""
    top, bottom = (np.array(gain) for gain in _TINT[light])
    share = ((np.arange(size) + 0.5) / size)[:, None, None]
    return (top + (bottom - top) * share).astype(np.float32)


def _tinted(picture: Image.Image, light: str) -> Image.Image:
    pixels = np.asarray(picture, np.float32) * _tint(light, picture.height)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
