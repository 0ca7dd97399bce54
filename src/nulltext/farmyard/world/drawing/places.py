"""Sky and ground of each place."""

import functools
import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image

from nulltext.farmyard.world.drawing.pen import INK, PAPER, Pen, mix, vertical
from nulltext.farmyard.world.drawing.shapes import RGB, Outline, Shape, dot, limb, patch
from nulltext.farmyard.world.drawing.sky import draw_lights, sky_stops
from nulltext.farmyard.world.scene import Scene


def _hill(draws: random.Random, level: float, height: float) -> Outline:
    """Ground up to a soft wave about `level`."""
    phase, waves = draws.uniform(0, 2 * math.pi), draws.uniform(0.7, 1.3)
    xs = [k / 24 for k in range(-1, 26)]
    top = [(x, level - height * math.sin(2 * math.pi * waves * x + phase)) for x in xs]
    return patch(*top, (1.1, 1.1), (-0.1, 1.1))


def _cloud(draws: random.Random) -> list[Shape]:
    x, y, r = draws.uniform(0.05, 0.95), draws.uniform(0.08, 0.24), draws.uniform(0.05, 0.075)
    return [dot(x, y, r), dot(x - 1.2 * r, y + 0.3 * r, 0.7 * r), dot(x + 1.2 * r, y + 0.25 * r, 0.75 * r)]


def _trunks(draws: random.Random) -> list[Shape]:
    xs = [0.08 + 0.21 * k + draws.uniform(-0.04, 0.04) for k in range(5)]
    return [limb((x, -0.1), (x, 0.66), r=draws.uniform(0.028, 0.04)) for x in xs]


_SKY: dict[str, tuple[RGB, RGB]] = {
    "meadow": ((104, 178, 240), (206, 232, 248)),
    "snow": ((146, 168, 214), (222, 226, 242)),
    "desert": ((246, 176, 120), (255, 230, 176)),
    "beach": ((70, 168, 236), (186, 228, 248)),
    "forest": ((34, 84, 62), (150, 190, 112)),
}


def background(scene: Scene, side: int) -> Image.Image:
    """Sky and ground of a place at its time of day, (side, side); the scene's seed lays them out."""
    top, horizon = sky_stops(_SKY[scene.place], scene.time)
    canvas = vertical(((0.0, top), (0.62, horizon)), side).copy()
    pen = Pen(canvas, scene.style)
    draw_lights(pen, scene)
    layers = _LAYERS[scene.place](random.Random(scene.seed))
    if scene.place == "desert" and scene.time != "day":
        layers = layers[1:]  # its sun is up by day alone
    for shapes, colour in layers:
        if scene.style == "drawing":
            pen.fill(shapes, mix(colour, INK, 0.45), grow=0.012)
        pen.fill(shapes, colour)
    if scene.style == "drawing":
        return Image.composite(canvas, Image.new("RGB", canvas.size, PAPER), _vignette(side))
    return canvas


_Layers = list[tuple[list[Shape], RGB]]


def _meadow(draws: random.Random) -> _Layers:
    clouds = [_cloud(draws), _cloud(draws)]
    hills: _Layers = [
        ([_hill(draws, 0.54, 0.05)], (130, 196, 110)),
        ([_hill(draws, 0.63, 0.025)], (96, 178, 76)),
    ]
    return [
        *((cloud, (246, 250, 254)) for cloud in clouds),
        *hills,
        ([_hill(draws, 0.8, 0.015)], (82, 164, 66)),
    ]


def _snow(draws: random.Random) -> _Layers:
    peak = draws.uniform(0.2, 0.4)
    peaks: list[Shape] = [
        patch((peak - 0.4, 0.7), (peak, 0.26), (peak + 0.4, 0.7)),
        patch((0.4, 0.7), (peak + 0.45, 0.34), (1.2, 0.7)),
    ]
    hills: _Layers = [
        ([_hill(draws, 0.6, 0.025)], (222, 230, 244)),
        ([_hill(draws, 0.72, 0.02)], (238, 243, 251)),
    ]
    return [(peaks, (170, 184, 216)), *hills]


def _desert(draws: random.Random) -> _Layers:
    sun: list[Shape] = [dot(draws.uniform(0.1, 0.9), draws.uniform(0.12, 0.24), 0.09)]
    dunes: _Layers = [
        ([_hill(draws, 0.54, 0.05)], (226, 164, 104)),
        ([_hill(draws, 0.68, 0.03)], (236, 190, 128)),
    ]
    return [(sun, (255, 246, 210)), *dunes, ([_hill(draws, 0.84, 0.02)], (228, 178, 116))]


def _beach(draws: random.Random) -> _Layers:
    cloud = _cloud(draws)
    sea: list[Shape] = [patch((-0.1, 0.46), (1.1, 0.46), (1.1, 1.1), (-0.1, 1.1))]
    near: list[Shape] = [_hill(draws, 0.55, 0.01)]
    shore = draws.uniform(0.64, 0.68)
    foam, sand = _hill(draws, shore, 0.015), _hill(random.Random(0), shore + 0.05, 0.012)
    tones: _Layers = [
        (sea, (34, 120, 190)),
        (near, (60, 168, 206)),
        ([foam], (236, 250, 250)),
        ([sand], (244, 220, 166)),
    ]
    return [(cloud, (250, 252, 255)), *tones]


def _forest(draws: random.Random) -> _Layers:
    crowns: list[Shape] = [
        dot(k * 0.2, draws.uniform(-0.04, 0.04), draws.uniform(0.13, 0.17)) for k in range(6)
    ]
    bushes: list[Shape] = [dot(0.1 + k * 0.27, 0.62, draws.uniform(0.08, 0.12)) for k in range(4)]
    ground: _Layers = [(bushes, (62, 116, 70)), ([_hill(draws, 0.66, 0.015)], (124, 134, 70))]
    return [
        (_trunks(draws), (92, 74, 58)),
        (crowns, (36, 92, 58)),
        *ground,
        ([_hill(draws, 0.84, 0.015)], (110, 120, 60)),
    ]


_LAYERS: dict[str, Callable[[random.Random], _Layers]] = {
    "meadow": _meadow,
    "snow": _snow,
    "desert": _desert,
    "beach": _beach,
    "forest": _forest,
}


@functools.cache
def _vignette(side: int) -> Image.Image:
    """How much of the background a drawing shows, (side, side): most in the middle, paper at the edge."""
    axis = np.abs((np.arange(side) + 0.5) / side * 2 - 1)
    edge = np.clip((1.02 - (axis[:, None] ** 6 + axis[None, :] ** 6) ** (1 / 6)) / 0.22, 0, 1)
    return Image.fromarray((255 * 0.62 * edge).round().astype(np.uint8))
