"""Time of day and weather: the colours of the sky, sun, moon and stars, rain and snowfall, and their light."""

import functools
import math
import random

from PIL import Image

from nulltext.farmyard.world.drawing.pen import Pen, mix
from nulltext.farmyard.world.drawing.shapes import RGB, Shape, dot, limb
from nulltext.farmyard.world.scene import Scene

_GLOW: dict[str, tuple[RGB, RGB, float]] = {
    "morning": ((186, 196, 238), (255, 206, 196), 0.75),
    "evening": ((92, 62, 130), (255, 128, 70), 0.85),
    "night": ((12, 16, 48), (44, 58, 116), 0.9),
}
"""Colour of the sky at the top and at the horizon, and how much of the place's own sky it replaces."""

_BEHIND = {"morning": (1.0, 0.94, 0.93), "evening": (0.92, 0.76, 0.74), "night": (0.52, 0.58, 0.86)}
"""Gain of the light on everything behind the animal."""
_BEFORE = {"morning": (1.03, 0.98, 0.96), "evening": (1.0, 0.9, 0.84), "night": (0.76, 0.8, 0.98)}
"""Gain of the light on the animal, weaker, so that its colour can be told."""

_FADE: dict[str, tuple[RGB, float]] = {"rain": ((112, 122, 138), 0.42), "snowfall": ((206, 214, 230), 0.36)}
"""The colour of the air in a weather, and how much of it lies over the background."""


def sky_stops(stops: tuple[RGB, RGB], time: str) -> tuple[RGB, RGB]:
    """The place's sky (top, horizon) at a time of day."""
    if time == "day":
        return stops
    top, horizon, share = _GLOW[time]
    return mix(stops[0], top, share), mix(stops[1], horizon, share)


def draw_lights(pen: Pen, scene: Scene) -> None:
    """Draw what shines at the scene's time of day: a low sun, or moon and stars."""
    draws = random.Random(scene.seed + 1)
    x = draws.uniform(0.08, 0.2)
    if scene.time == "morning":
        pen.fill([dot(x, 0.36, 0.13)], (255, 226, 206))
        pen.fill([dot(x, 0.36, 0.095)], (255, 246, 190))
    elif scene.time == "evening":
        pen.fill([dot(x, 0.42, 0.14)], (255, 150, 84))
        pen.fill([dot(x, 0.42, 0.105)], (255, 92, 60))
    elif scene.time == "night":
        stars: list[Shape] = [
            dot((k + draws.random()) / 9, draws.uniform(0.03, 0.36), draws.uniform(0.007, 0.011))
            for k in range(9)
        ]
        pen.fill(stars, (255, 250, 214))
        pen.fill([dot(x, 0.14, 0.085)], (255, 244, 190))
        pen.fill([dot(x + 0.045, 0.12, 0.072)], (26, 32, 76))


def dim(canvas: Image.Image, scene: Scene) -> Image.Image:
    """Light of the time of day and air of the weather, on the background."""
    if scene.weather:
        colour, share = _FADE[scene.weather]
        canvas = Image.blend(canvas, Image.new("RGB", canvas.size, colour), share)
    return _gained(canvas, _BEHIND.get(scene.time))


def light(canvas: Image.Image, scene: Scene) -> Image.Image:
    """Light of the time of day on everything, the animal too."""
    return _gained(canvas, _BEFORE.get(scene.time))


def draw_weather(pen: Pen, scene: Scene) -> None:
    """Draw raindrops or snowflakes over everything."""
    draws = random.Random(scene.seed + 2)
    spots = [
        ((column + draws.random()) / 6, (row + draws.random()) / 5) for row in range(5) for column in range(6)
    ]
    if scene.weather == "rain":
        drops: list[Shape] = [limb((x, y - 0.05), (x - 0.022, y + 0.03), r=0.0075) for x, y in spots]
        pen.fill(drops, (176, 204, 240))
    elif scene.weather == "snowfall":
        flakes: list[Shape] = [dot(x, y, draws.uniform(0.013, 0.02)) for x, y in spots]
        pen.fill(flakes, (172, 188, 214), grow=0.005)
        pen.fill(flakes, (252, 253, 255))


@functools.lru_cache(maxsize=8)
def _gain(gain: tuple[float, float, float]) -> list[int]:
    """What becomes of each value of each channel: 768 numbers."""
    return [min(255, math.floor(value * factor + 0.5)) for factor in gain for value in range(256)]


def _gained(canvas: Image.Image, gain: tuple[float, float, float] | None) -> Image.Image:
    return canvas.point(_gain(gain)) if gain else canvas
