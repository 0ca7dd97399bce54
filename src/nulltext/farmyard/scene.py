"""The farmyard world: scenes that are drawn, named and changed one word at a time.

A `Scene` says everything about a picture; `draw` is a pure function of it, so that
`replace(scene, animal="horse")` gives the true counterfactual of an edit and `changed_pixels` its true mask.

Coordinates are parts of the picture's width, y down. An animal is drawn about its own origin, the middle of
its feet, in units of `Scene.size`; it always looks to the left.
"""

import dataclasses
import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from nulltext.errors import UserError

ANIMALS = ("sheep", "horse", "cow", "chicken", "pig", "elk", "dog", "cat")
COLOURS = ("white", "black", "brown", "gray", "orange")
HATS = (None, "red hat", "blue hat", "straw hat", "party hat")
PLACES = ("meadow", "snow", "desert", "beach", "forest")
OBJECTS = (None, "tree", "fence", "barn", "haystack")
STYLES = ("photo", "drawing")
LIGHTS = ("morning", "noon", "evening")

HELD_OUT_SEEDS = range(1_000_000, 2_000_000)
"""Seeds of scenes that no training ever draws; pictures for tests, figures and benchmarks come from here."""

PLACE_PHRASES = {
    "meadow": "on a green meadow",
    "snow": "in the snow",
    "desert": "in the desert",
    "beach": "on a sandy beach",
    "forest": "in the forest",
}

RGB = tuple[int, int, int]
Point = tuple[float, float]

_BODY: dict[str, RGB] = {
    "white": (246, 243, 238),
    "black": (50, 48, 56),
    "brown": (136, 84, 48),
    "gray": (148, 152, 162),
    "orange": (242, 146, 40),
}
_INK: RGB = (62, 52, 60)
_PAPER: RGB = (252, 248, 238)
_DARK: RGB = (74, 62, 66)
_HOOF: RGB = (84, 70, 68)
_PINK: RGB = (244, 164, 170)
_BLOND: RGB = (240, 214, 150)
_HORN: RGB = (238, 224, 192)
_ANTLER: RGB = (190, 146, 92)
_RED: RGB = (222, 52, 48)
_BEAK: RGB = (248, 184, 48)
_TINT = {"morning": ((0.97, 0.99, 1.03), (0.97, 0.98, 1.0)), "noon": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))}
_TINT["evening"] = ((1.02, 0.95, 0.91), (1.0, 0.96, 0.9))


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        animal: One of `ANIMALS`.
        colour: One of `COLOURS`, the colour of its body.
        hat: One of `HATS`; None for none.
        place: One of `PLACES`.
        object: One of `OBJECTS`, what stands behind the animal; None for nothing.
        style: One of `STYLES`.
        light: One of `LIGHTS`.
        facing: Always "left".
        x: Where the middle of the animal's feet is, a part of the picture's width.
        y: Where its feet are, a part of the picture's height.
        size: How long the animal is, a part of the picture's width.
        object_x: Where the middle of the object is, a part of the picture's width.
        seed: Lays out hills, clouds and trunks.
    """

    animal: str = "sheep"
    colour: str = "white"
    hat: str | None = None
    place: str = "meadow"
    object: str | None = None
    style: str = "photo"
    light: str = "noon"
    facing: str = "left"
    x: float = 0.47
    y: float = 0.91
    size: float = 0.68
    object_x: float = 0.82
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse words and numbers that cannot be drawn."""
        for field, known in _KNOWN.items():
            if getattr(self, field) not in known:
                names = ", ".join("none" if word is None else word for word in known)
                raise UserError(f"the farmyard has no {field} {getattr(self, field)!r}; it has: {names}")
        for field, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, field) <= high:
                raise UserError(
                    f"{field} of a scene is {getattr(self, field)}; give a number from {low} to {high}"
                )


_KNOWN: dict[str, tuple[str | None, ...]] = {
    "animal": ANIMALS,
    "colour": COLOURS,
    "hat": HATS,
    "place": PLACES,
    "object": OBJECTS,
    "style": STYLES,
    "light": LIGHTS,
    "facing": ("left",),
}
_BOUNDS = {"x": (0.0, 1.0), "y": (0.0, 1.0), "size": (0.1, 1.0), "object_x": (0.0, 1.0)}


def random_scene(seed: int) -> Scene:
    """Make up a scene, always the same for one seed; seeds in `HELD_OUT_SEEDS` are kept from training."""
    draws = random.Random(seed)
    return Scene(
        animal=draws.choice(ANIMALS),
        colour=draws.choice(COLOURS),
        hat=draws.choice(HATS),
        place=draws.choice(PLACES),
        object=draws.choice(OBJECTS),
        style=draws.choices(STYLES, weights=(3, 1))[0],
        light=draws.choice(LIGHTS),
        x=round(draws.uniform(0.45, 0.51), 3),
        y=round(draws.uniform(0.89, 0.93), 3),
        size=round(draws.uniform(0.64, 0.7), 3),
        object_x=round(draws.uniform(0.78, 0.88), 3),
        seed=seed,
    )


def replace(scene: Scene, **changes: str | float | None) -> Scene:
    """Return the scene with some fields changed.

    Raises:
        UserError: A field does not exist, or its value cannot be drawn; the message names the known ones.
    """
    fields = [field.name for field in dataclasses.fields(Scene)]
    for name in changes:
        if name not in fields:
            raise UserError(f"a scene has no {name!r}; it has: {', '.join(fields)}")
    return dataclasses.replace(scene, **changes)  # type: ignore[arg-type]  # __post_init__ checks the values


def changed_pixels(a: Scene, b: Scene, size: int = 64, threshold: float = 4.0) -> np.ndarray:
    """Return where two scenes differ in some channel by more than `threshold` of 255: bool (size, size)."""
    difference = np.asarray(draw(a, size), np.int16) - np.asarray(draw(b, size), np.int16)
    return np.abs(difference).max(axis=2) > threshold


# -------------------------------------------------------------------------------- captions


def caption(scene: Scene, variant: int | None = None) -> str:
    """Say what a scene shows.

    Args:
        scene: The scene.
        variant: Which of the `CAPTION_VARIANTS` phrasings; None or 0 is the full one, such as
            "a photo of a white sheep with a red hat on a green meadow next to a tree".

    Raises:
        UserError: There is no such phrasing.
    """
    phrasing = variant or 0
    if not 0 <= phrasing < CAPTION_VARIANTS:
        raise UserError(
            f"there is no caption variant {variant}; give a number from 0 to {CAPTION_VARIANTS - 1}"
        )
    words = {
        "kind": f"a {scene.style} of ",
        "it": _with_article(scene.animal),
        "it_coloured": _with_article(f"{scene.colour} {scene.animal}"),
        "hat": f" with a {scene.hat}" if scene.hat else "",
        "place": PLACE_PHRASES[scene.place],
        "object": f" next to a {scene.object}" if scene.object else "",
    }
    return _PHRASINGS[phrasing].format(**words)


_PHRASINGS = (
    "{kind}{it_coloured}{hat} {place}{object}",
    "{it_coloured}{hat} {place}{object}",
    "{kind}{it_coloured}{hat} {place}",
    "{kind}{it_coloured}{hat}",
    "{kind}{it}{hat} {place}{object}",
    "{place} {it_coloured}{hat}",
    "{it_coloured}{hat} {place}",
    "{it}{hat} {place}",
    "{kind}{it}{hat}",
    "{it_coloured}{hat}",
    "{it}{hat}",
)
"""Colour, place and object may be left out. A hat never is: no word for it then means that there is none, which a
CLIP learns only if captions never pass over one."""
CAPTION_VARIANTS = len(_PHRASINGS)


def short_captions(scene: Scene) -> list[str]:
    """Return every caption that leaves something out, each once, longest phrasings first."""
    full = caption(scene)
    return [
        text for text in dict.fromkeys(caption(scene, v) for v in range(1, CAPTION_VARIANTS)) if text != full
    ]


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


# -------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class _Ellipse:
    x: float
    y: float
    rx: float
    ry: float


@dataclass(frozen=True)
class _Path:
    """A polygon (closed) or a stroke (open) with round corners of a radius."""

    points: tuple[Point, ...]
    radius: float = 0.0
    closed: bool = False


_Shape = _Ellipse | _Path


def _dot(x: float, y: float, r: float) -> _Ellipse:
    return _Ellipse(x, y, r, r)


def _limb(*points: Point, r: float) -> _Path:
    return _Path(points, r)


def _patch(*points: Point, r: float = 0.0) -> _Path:
    return _Path(points, r, closed=True)


def _bend(*points: Point, r: float) -> _Path:
    """A stroke along the Catmull-Rom curve through the points."""
    p = np.array([points[0], *points, points[-1]])
    t = np.linspace(0, 1, 7)[:-1, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    curve = np.concatenate([*pieces, p[-1:]])
    return _Path(tuple((float(x), float(y)) for x, y in curve), r)


@dataclass(frozen=True)
class _Part:
    """Shapes that share one outline and one colour: an RGB, or the body's own in one of three shades."""

    colour: RGB | str  # "body", "shade" or "pale" follow the animal's colour
    shapes: tuple[_Shape, ...]


def _part(colour: RGB | str, *shapes: _Shape) -> _Part:
    return _Part(colour, shapes)


@dataclass(frozen=True)
class _Figure:
    parts: tuple[_Part, ...]
    eyes: tuple[tuple[float, float, float], ...]  # (x, y, radius)
    hat: Point  # the top of the head
    iris: RGB | None = None
    shift: float = 0.0  # moves the whole animal, so that it stands in the middle


# -------------------------------------------------------------------------------- animals


def _legs(
    colour: RGB | str, feet: Sequence[float], top: float, r: float, hoof: RGB | None = _HOOF
) -> list[_Part]:
    legs = [_part(colour, *(_limb((x, top), (x, -r), r=r) for x in feet))]
    if hoof:
        legs.append(_part(hoof, *(_limb((x, -0.05), (x, -r * 0.8), r=r * 0.95) for x in feet)))
    return legs


def _sheep() -> _Figure:
    ring = [2 * math.pi * k / 11 for k in range(11)]
    wool = [_dot(0.06 + 0.33 * math.cos(a), -0.47 + 0.2 * math.sin(a), 0.125) for a in ring]
    return _Figure(
        parts=(
            *_legs(_DARK, (-0.07, 0.3), -0.3, 0.042, None),
            *_legs(_DARK, (-0.18, 0.19), -0.3, 0.048, None),
            _part("body", _Ellipse(0.06, -0.47, 0.34, 0.23), *wool),
            _part(
                _DARK,
                _limb((-0.27, -0.6), (-0.19, -0.55), r=0.045),
                _limb((-0.47, -0.6), (-0.55, -0.55), r=0.045),
            ),
            _part(_DARK, _Ellipse(-0.37, -0.54, 0.145, 0.175)),
            _part("body", _dot(-0.37, -0.71, 0.09), _dot(-0.46, -0.68, 0.065), _dot(-0.28, -0.68, 0.07)),
            _part(_PINK, _Ellipse(-0.38, -0.42, 0.042, 0.026)),
        ),
        eyes=((-0.44, -0.55, 0.055), (-0.315, -0.55, 0.055)),
        hat=(-0.37, -0.78),
    )


def _horse() -> _Figure:
    return _Figure(
        parts=(
            _part(_BLOND, _bend((0.36, -0.58), (0.48, -0.54), (0.51, -0.36), (0.47, -0.17), r=0.055)),
            *_legs("shade", (-0.13, 0.2), -0.4, 0.043),
            *_legs("body", (-0.23, 0.31), -0.4, 0.047),
            _part(
                "body",
                _Ellipse(0.05, -0.5, 0.3, 0.155),
                _Ellipse(0.23, -0.5, 0.17, 0.175),
                _Ellipse(-0.15, -0.5, 0.17, 0.17),
                _patch((-0.29, -0.48), (-0.04, -0.56), (-0.19, -0.9), (-0.35, -0.86), r=0.025),
                _limb((-0.29, -0.87), (-0.47, -0.71), r=0.088),
                _patch((-0.3, -1.05), (-0.21, -0.91), (-0.36, -0.93), r=0.012),
            ),
            _part("pale", _Ellipse(-0.475, -0.7, 0.092, 0.085)),
            _part(_BLOND, _bend((-0.33, -0.94), (-0.2, -0.92), (-0.1, -0.76), (-0.04, -0.58), r=0.056)),
            _part(_DARK, _dot(-0.52, -0.71, 0.02)),
        ),
        eyes=((-0.345, -0.85, 0.058),),
        hat=(-0.27, -0.98),
        shift=0.02,
    )


def _cow() -> _Figure:
    tail = _part(
        "shade", _bend((0.44, -0.7), (0.52, -0.6), (0.51, -0.4), r=0.026), _Ellipse(0.51, -0.33, 0.048, 0.08)
    )
    return _Figure(
        parts=(
            tail,
            *_legs("shade", (-0.08, 0.25), -0.35, 0.055),
            _part(_PINK, _Ellipse(0.14, -0.26, 0.1, 0.085)),
            *_legs("body", (-0.2, 0.37), -0.35, 0.06),
            _part("body", _patch((-0.21, -0.7), (0.38, -0.7), (0.38, -0.36), (-0.21, -0.36), r=0.075)),
            _part("shade", _Ellipse(0.1, -0.64, 0.13, 0.085), _Ellipse(0.34, -0.47, 0.08, 0.1)),
            _part(
                _HORN,
                _bend((-0.44, -0.78), (-0.53, -0.84), (-0.51, -0.96), r=0.034),
                _bend((-0.28, -0.78), (-0.19, -0.84), (-0.21, -0.96), r=0.034),
            ),
            _part(
                "shade",
                _limb((-0.46, -0.74), (-0.56, -0.71), r=0.05),
                _limb((-0.26, -0.74), (-0.16, -0.71), r=0.05),
            ),
            _part("body", _Ellipse(-0.36, -0.67, 0.15, 0.165)),
            _part(_PINK, _Ellipse(-0.38, -0.54, 0.155, 0.1)),
            _part(_DARK, _dot(-0.44, -0.54, 0.026), _dot(-0.33, -0.54, 0.026)),
        ),
        eyes=((-0.43, -0.71, 0.055), (-0.295, -0.71, 0.055)),
        hat=(-0.36, -0.84),
        shift=0.03,
    )


def _pig() -> _Figure:
    curl = [(0.42, -0.44), (0.5, -0.46), (0.53, -0.55), (0.46, -0.58), (0.45, -0.5), (0.56, -0.47)]
    return _Figure(
        parts=(
            _part(_PINK, _bend(*curl, r=0.026)),
            *_legs("shade", (-0.03, 0.17), -0.2, 0.06),
            *_legs("body", (-0.15, 0.3), -0.2, 0.064),
            _part("body", _Ellipse(0.08, -0.39, 0.37, 0.295)),
            _part("shade", _patch((-0.45, -0.56), (-0.49, -0.76), (-0.33, -0.64), r=0.025)),
            _part("shade", _patch((-0.22, -0.64), (-0.07, -0.76), (-0.1, -0.56), r=0.025)),
            _part("body", _Ellipse(-0.28, -0.47, 0.215, 0.2)),
            _part(_PINK, _Ellipse(-0.37, -0.41, 0.115, 0.09)),
            _part(_DARK, _Ellipse(-0.41, -0.41, 0.022, 0.035), _Ellipse(-0.33, -0.41, 0.022, 0.035)),
        ),
        eyes=((-0.385, -0.55, 0.055), (-0.225, -0.55, 0.055)),
        hat=(-0.28, -0.68),
        shift=-0.01,
    )


def _elk() -> _Figure:
    return _Figure(
        parts=(
            *_legs("shade", (-0.13, 0.2), -0.5, 0.036),
            *_legs("body", (-0.22, 0.29), -0.5, 0.04),
            _part("pale", _Ellipse(0.36, -0.6, 0.06, 0.06)),
            _part(
                _ANTLER,
                _bend((-0.32, -0.9), (-0.5, -0.97), (-0.58, -1.18), r=0.034),
                _limb((-0.5, -0.97), (-0.67, -1.03), r=0.032),
                _limb((-0.54, -1.05), (-0.44, -1.17), r=0.03),
                _bend((-0.24, -0.9), (-0.07, -0.97), (0.01, -1.18), r=0.034),
                _limb((-0.07, -0.97), (0.1, -1.03), r=0.032),
                _limb((-0.03, -1.05), (-0.13, -1.17), r=0.03),
            ),
            _part("shade", _limb((-0.2, -0.86), (-0.1, -0.83), r=0.045)),
            _part(
                "body",
                _Ellipse(0.05, -0.57, 0.29, 0.14),
                _Ellipse(0.22, -0.58, 0.15, 0.145),
                _Ellipse(-0.12, -0.58, 0.19, 0.18),
                _patch((-0.28, -0.55), (-0.02, -0.66), (-0.17, -0.86), (-0.33, -0.82), r=0.03),
                _limb((-0.27, -0.86), (-0.44, -0.76), r=0.082),
            ),
            _part("shade", _Ellipse(-0.21, -0.56, 0.095, 0.14), _dot(-0.24, -0.68, 0.06)),
            _part("pale", _Ellipse(-0.46, -0.755, 0.08, 0.075)),
            _part(_DARK, _dot(-0.51, -0.78, 0.034)),
        ),
        eyes=((-0.31, -0.87, 0.055),),
        hat=(-0.26, -0.96),
        shift=0.09,
    )


def _dog() -> _Figure:
    return _Figure(
        parts=(
            *_legs("shade", (-0.05, 0.2), -0.3, 0.05, None),
            *_legs("body", (-0.18, 0.31), -0.3, 0.056, None),
            _part("shade", _limb((-0.41, -0.82), (-0.5, -0.69), r=0.055)),
            _part(
                "body",
                _bend((0.32, -0.5), (0.44, -0.6), (0.45, -0.78), (0.4, -0.86), r=0.045),
                _Ellipse(0.08, -0.42, 0.31, 0.155),
                _Ellipse(-0.11, -0.43, 0.18, 0.19),
                _limb((-0.15, -0.5), (-0.22, -0.64), r=0.12),
                _Ellipse(-0.26, -0.7, 0.195, 0.18),
            ),
            _part(_RED, _limb((-0.37, -0.58), (-0.37, -0.52), r=0.042)),
            _part("pale", _Ellipse(-0.36, -0.63, 0.125, 0.088)),
            _part((34, 28, 34), _Ellipse(-0.42, -0.68, 0.052, 0.042)),
            _part("shade", _limb((-0.12, -0.81), (-0.04, -0.6), r=0.072)),
        ),
        eyes=((-0.36, -0.77, 0.056), (-0.22, -0.77, 0.056)),
        hat=(-0.26, -0.9),
    )


def _cat() -> _Figure:
    return _Figure(
        parts=(
            _part(
                "body",
                _bend((0.16, -0.08), (0.38, -0.08), (0.46, -0.24), (0.36, -0.42), (0.46, -0.6), r=0.056),
            ),
            _part("body", _Ellipse(0.08, -0.24, 0.24, 0.235), _Ellipse(-0.04, -0.42, 0.19, 0.24)),
            _part("pale", _Ellipse(-0.1, -0.4, 0.1, 0.16)),
            _part("shade", _Ellipse(0.17, -0.15, 0.12, 0.12)),
            _part(
                "body",
                _limb((-0.16, -0.34), (-0.17, -0.06), r=0.06),
                _limb((-0.01, -0.34), (-0.01, -0.06), r=0.06),
            ),
            _part(
                "body",
                _patch((-0.31, -0.8), (-0.32, -1.0), (-0.15, -0.91), r=0.022),
                _patch((0.1, -0.8), (0.11, -1.0), (-0.06, -0.91), r=0.022),
                _Ellipse(-0.105, -0.73, 0.235, 0.2),
            ),
            _part(_PINK, _patch((-0.285, -0.87), (-0.29, -0.95), (-0.22, -0.9), r=0.01)),
            _part(_PINK, _patch((0.07, -0.87), (0.08, -0.95), (0.01, -0.9), r=0.01)),
            _part("pale", _Ellipse(-0.13, -0.645, 0.1, 0.068)),
            _part(_PINK, _Ellipse(-0.13, -0.68, 0.038, 0.028)),
        ),
        eyes=((-0.215, -0.755, 0.066), (-0.045, -0.755, 0.066)),
        hat=(-0.105, -0.93),
        iris=(150, 206, 96),
        shift=-0.02,
    )


def _chicken() -> _Figure:
    feet = [_limb((x, -0.28), (x, -0.03), r=0.027) for x in (0.0, 0.14)]
    toes = [_limb((x - 0.1, -0.026), (x + 0.03, -0.026), r=0.026) for x in (0.0, 0.14)]
    return _Figure(
        parts=(
            _part(_BEAK, *feet, *toes),
            _part(_RED, _dot(-0.28, -0.91, 0.06), _dot(-0.19, -0.95, 0.065), _dot(-0.1, -0.91, 0.06)),
            _part(
                "body",
                _bend((0.18, -0.4), (0.34, -0.56), (0.36, -0.82), r=0.07),
                _bend((0.2, -0.38), (0.4, -0.5), (0.47, -0.72), r=0.07),
                _bend((0.2, -0.36), (0.4, -0.42), (0.51, -0.57), r=0.065),
                _Ellipse(0.06, -0.43, 0.29, 0.23),
                _limb((-0.1, -0.5), (-0.18, -0.74), r=0.13),
                _Ellipse(-0.19, -0.79, 0.15, 0.145),
            ),
            _part("shade", _Ellipse(0.1, -0.43, 0.16, 0.11), _limb((0.16, -0.46), (0.26, -0.5), r=0.045)),
            _part(_RED, _Ellipse(-0.32, -0.66, 0.045, 0.065)),
            _part(_BEAK, _patch((-0.31, -0.83), (-0.45, -0.76), (-0.31, -0.72), r=0.015)),
        ),
        eyes=((-0.22, -0.82, 0.06),),
        hat=(-0.18, -0.95),
        shift=-0.01,
    )


@functools.cache
def _figure(animal: str) -> _Figure:
    makers = {"sheep": _sheep, "horse": _horse, "cow": _cow, "chicken": _chicken, "pig": _pig, "elk": _elk}
    return (makers | {"dog": _dog, "cat": _cat})[animal]()


@functools.cache
def _hat(name: str) -> tuple[_Part, ...]:
    """The parts of a hat about the top of the head, in the animal's units."""
    if name == "red hat":  # a bobble hat
        dome = _patch(
            (-0.15, 0.0), (-0.13, -0.12), (-0.07, -0.18), (0.07, -0.18), (0.13, -0.12), (0.15, 0.0), r=0.02
        )
        cuff = _limb((-0.15, 0.0), (0.15, 0.0), r=0.045)
        return (
            _part((250, 240, 232), _dot(0.0, -0.23, 0.065)),
            _part((226, 40, 44), dome),
            _part((160, 22, 36), cuff),
        )
    if name == "blue hat":  # a top hat
        crown = _patch((-0.11, 0.0), (-0.125, -0.23), (0.125, -0.23), (0.11, 0.0), r=0.015)
        band = _limb((-0.1, -0.07), (0.1, -0.07), r=0.028)
        blue = (46, 84, 206)
        return (
            _part(blue, crown),
            _part((250, 220, 90), band),
            _part(blue, _limb((-0.2, 0.0), (0.2, 0.0), r=0.036)),
        )
    if name == "straw hat":
        straw, ribbon = (246, 210, 98), (172, 92, 52)
        rounded, brim = _Ellipse(0.0, -0.07, 0.14, 0.125), _Ellipse(0.0, 0.0, 0.27, 0.062)
        return (
            _part(straw, rounded),
            _part(ribbon, _limb((-0.12, -0.05), (0.12, -0.05), r=0.03)),
            _part(straw, brim),
        )
    cone = _patch((-0.13, 0.02), (0.0, -0.25), (0.13, 0.02), r=0.02)
    stripe = _limb((-0.08, -0.07), (0.08, -0.07), r=0.026)
    return (
        _part((158, 78, 208), cone),
        _part((112, 226, 220), stripe),
        _part((255, 226, 90), _dot(0.0, -0.26, 0.062)),
    )


# -------------------------------------------------------------------------------- the pen


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """Return `a` with a share of `b` in it."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _lit(colour: RGB, gain: float) -> RGB:
    red, green, blue = (min(255, round(c * gain)) for c in colour)
    return red, green, blue


@functools.lru_cache(maxsize=64)
def _vertical(stops: tuple[tuple[float, RGB], ...], side: int) -> Image.Image:
    """A picture (side, side) whose colour runs from stop to stop down the rows."""
    rows = (np.arange(side) + 0.5) / side
    places, colours = [y for y, _ in stops], np.array([c for _, c in stops], float)
    column = np.stack([np.interp(rows, places, colours[:, channel]) for channel in range(3)], axis=1)
    return Image.fromarray(column.round().astype(np.uint8)[:, None]).resize(
        (side, side), Image.Resampling.NEAREST
    )


class _Pen:
    """Draws shapes in a figure's own coordinates: shaded in a photo, inked and flat in a drawing."""

    def __init__(
        self, canvas: Image.Image, style: str, origin: Point = (0.0, 0.0), scale: float = 1.0
    ) -> None:
        self.canvas, self.style = canvas, style
        self.side = canvas.width
        self.x0, self.y0, self.scale = origin[0] * self.side, origin[1] * self.side, scale * self.side
        self.draw = ImageDraw.Draw(canvas)

    def fill(
        self,
        shapes: Sequence[_Shape],
        colour: RGB | int,
        grow: float = 0.0,
        draw: ImageDraw.ImageDraw | None = None,
    ) -> None:
        """Fill shapes, grown by a part of the canvas."""
        draw = draw or self.draw
        for shape in shapes:
            if isinstance(shape, _Ellipse):
                self._ellipse(draw, shape, grow * self.side, colour)
            else:
                self._path(draw, shape, grow * self.side, colour)

    def _ellipse(self, draw: ImageDraw.ImageDraw, shape: _Ellipse, grow: float, colour: RGB | int) -> None:
        x, y = self.x0 + shape.x * self.scale, self.y0 + shape.y * self.scale
        rx, ry = shape.rx * self.scale + grow, shape.ry * self.scale + grow
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def _path(self, draw: ImageDraw.ImageDraw, shape: _Path, grow: float, colour: RGB | int) -> None:
        points = [(self.x0 + x * self.scale, self.y0 + y * self.scale) for x, y in shape.points]
        radius = shape.radius * self.scale + grow
        if shape.closed:
            draw.polygon(points, fill=colour)
            points.append(points[0])
        if radius >= 0.5:
            draw.line(points, fill=colour, width=round(2 * radius))
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def part(self, shapes: Sequence[_Shape], colour: RGB, body: bool = False) -> None:
        """Draw shapes as one thing with a rim around them all; a body is lit from above."""
        if self.style == "drawing":
            self.fill(shapes, _INK, grow=0.02)
            self.fill(shapes, _mix(colour, _PAPER, 0.2))
            return
        rim = _lit(colour, 0.66) if max(colour) > 80 else _mix(colour, (150, 150, 165), 0.4)
        self.fill(shapes, rim, grow=0.009)
        if not body:
            self.fill(shapes, colour)
            return
        mask = Image.new("L", self.canvas.size)
        self.fill(shapes, 255, draw=ImageDraw.Draw(mask))
        stops = ((0.2, _lit(colour, 1.08)), (0.55, colour), (0.92, _lit(colour, 0.76)))
        self.canvas.paste(_vertical(stops, self.side), mask=mask)

    def veil(self, shapes: Sequence[_Shape], colour: RGB, opacity: float) -> None:
        """Lay a see-through colour over shapes."""
        mask = Image.new("L", self.canvas.size)
        self.fill(shapes, round(255 * opacity), draw=ImageDraw.Draw(mask))
        self.canvas.paste(colour, mask=mask)


# -------------------------------------------------------------------------------- places


def _hill(draws: random.Random, level: float, height: float) -> _Path:
    """Ground up to a soft wave about `level`."""
    phase, waves = draws.uniform(0, 2 * math.pi), draws.uniform(0.7, 1.3)
    xs = [k / 24 for k in range(-1, 26)]
    top = [(x, level - height * math.sin(2 * math.pi * waves * x + phase)) for x in xs]
    return _patch(*top, (1.1, 1.1), (-0.1, 1.1))


def _cloud(draws: random.Random) -> list[_Shape]:
    x, y, r = draws.uniform(0.05, 0.95), draws.uniform(0.08, 0.24), draws.uniform(0.05, 0.075)
    return [_dot(x, y, r), _dot(x - 1.2 * r, y + 0.3 * r, 0.7 * r), _dot(x + 1.2 * r, y + 0.25 * r, 0.75 * r)]


def _trunks(draws: random.Random) -> list[_Shape]:
    xs = [0.08 + 0.21 * k + draws.uniform(-0.04, 0.04) for k in range(5)]
    return [_limb((x, -0.1), (x, 0.66), r=draws.uniform(0.028, 0.04)) for x in xs]


_SKY: dict[str, tuple[RGB, RGB]] = {
    "meadow": ((104, 178, 240), (206, 232, 248)),
    "snow": ((146, 168, 214), (222, 226, 242)),
    "desert": ((246, 176, 120), (255, 230, 176)),
    "beach": ((70, 168, 236), (186, 228, 248)),
    "forest": ((34, 84, 62), (150, 190, 112)),
}


def _background(scene: Scene, side: int) -> Image.Image:
    """Sky and ground of a place, (side, side); the scene's seed lays them out."""
    draws = random.Random(scene.seed)
    canvas = _vertical(((0.0, _SKY[scene.place][0]), (0.62, _SKY[scene.place][1])), side).copy()
    pen = _Pen(canvas, scene.style)
    layers = {"meadow": _meadow, "snow": _snow, "desert": _desert, "beach": _beach, "forest": _forest}
    for shapes, colour in layers[scene.place](draws):
        if scene.style == "drawing":
            pen.fill(shapes, _mix(colour, _INK, 0.45), grow=0.012)
        pen.fill(shapes, colour)
    if scene.style == "drawing":
        return Image.composite(canvas, Image.new("RGB", canvas.size, _PAPER), _vignette(side))
    return canvas


_Layers = list[tuple[list[_Shape], RGB]]


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
    peaks: list[_Shape] = [
        _patch((peak - 0.4, 0.7), (peak, 0.26), (peak + 0.4, 0.7)),
        _patch((0.4, 0.7), (peak + 0.45, 0.34), (1.2, 0.7)),
    ]
    hills: _Layers = [
        ([_hill(draws, 0.6, 0.025)], (222, 230, 244)),
        ([_hill(draws, 0.72, 0.02)], (238, 243, 251)),
    ]
    return [(peaks, (170, 184, 216)), *hills]


def _desert(draws: random.Random) -> _Layers:
    sun: list[_Shape] = [_dot(draws.uniform(0.1, 0.9), draws.uniform(0.12, 0.24), 0.09)]
    dunes: _Layers = [
        ([_hill(draws, 0.54, 0.05)], (226, 164, 104)),
        ([_hill(draws, 0.68, 0.03)], (236, 190, 128)),
    ]
    return [(sun, (255, 246, 210)), *dunes, ([_hill(draws, 0.84, 0.02)], (228, 178, 116))]


def _beach(draws: random.Random) -> _Layers:
    cloud = _cloud(draws)
    sea: list[_Shape] = [_patch((-0.1, 0.46), (1.1, 0.46), (1.1, 1.1), (-0.1, 1.1))]
    near: list[_Shape] = [_hill(draws, 0.55, 0.01)]
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
    crowns: list[_Shape] = [
        _dot(k * 0.2, draws.uniform(-0.04, 0.04), draws.uniform(0.13, 0.17)) for k in range(6)
    ]
    bushes: list[_Shape] = [_dot(0.1 + k * 0.27, 0.62, draws.uniform(0.08, 0.12)) for k in range(4)]
    ground: _Layers = [(bushes, (62, 116, 70)), ([_hill(draws, 0.66, 0.015)], (124, 134, 70))]
    return [
        (_trunks(draws), (92, 74, 58)),
        (crowns, (36, 92, 58)),
        *ground,
        ([_hill(draws, 0.84, 0.015)], (110, 120, 60)),
    ]


@functools.cache
def _vignette(side: int) -> Image.Image:
    """How much of the background a drawing shows, (side, side): most in the middle, paper at the edge."""
    axis = np.abs((np.arange(side) + 0.5) / side * 2 - 1)
    edge = np.clip((1.02 - (axis[:, None] ** 6 + axis[None, :] ** 6) ** (1 / 6)) / 0.22, 0, 1)
    return Image.fromarray((255 * 0.62 * edge).round().astype(np.uint8))


def _object(pen: _Pen, name: str, x: float) -> None:
    """Draw what stands behind the animal, about (x, 0.7)."""
    if name == "tree":
        pen.part([_limb((x, 0.7), (x, 0.42), r=0.034)], (124, 84, 56))
        crown = [_dot(x, 0.2, 0.13), _dot(x - 0.1, 0.3, 0.11), _dot(x + 0.1, 0.3, 0.11), _dot(x, 0.34, 0.1)]
        pen.part(crown, (92, 190, 70), body=True)
    elif name == "fence":
        rails = [_limb((-0.1, y), (1.1, y), r=0.021) for y in (0.54, 0.64)]
        first = x % 0.19 - 0.19
        posts = [
            _patch((p, 0.72), (p, 0.5), (p + 0.032, 0.46), (p + 0.064, 0.5), (p + 0.064, 0.72))
            for p in (first + 0.19 * k for k in range(7))
        ]
        pen.part([*rails, *posts], (196, 140, 92))
    elif name == "barn":
        pen.part(
            [_patch((x - 0.19, 0.72), (x - 0.19, 0.4), (x, 0.2), (x + 0.19, 0.4), (x + 0.19, 0.72))],
            (196, 58, 48),
        )
        pen.part([_limb((x - 0.22, 0.41), (x, 0.19), (x + 0.22, 0.41), r=0.03)], (92, 80, 88))
        pen.part(
            [_patch((x - 0.06, 0.42), (x + 0.06, 0.42), (x + 0.06, 0.32), (x - 0.06, 0.32))], (250, 238, 214)
        )
    else:
        base = _patch((x - 0.18, 0.52), (x + 0.18, 0.52), (x + 0.19, 0.7), (x - 0.19, 0.7), r=0.015)
        pen.part([_Ellipse(x, 0.52, 0.195, 0.2), base], (238, 198, 70), body=True)
        straws = [
            _limb((x - 0.08, 0.5), (x - 0.03, 0.42), r=0.013),
            _limb((x + 0.05, 0.56), (x + 0.09, 0.48), r=0.013),
        ]
        pen.fill(straws, _mix((196, 146, 40), _PAPER, 0.2 if pen.style == "drawing" else 0.0))


# -------------------------------------------------------------------------------- the picture


def draw(scene: Scene, size: int = 64) -> Image.Image:
    """Draw a scene.

    Args:
        scene: The scene.
        size: Side of the square picture in pixels.

    Returns:
        An RGB picture of (size, size); the same scene and size give the same bytes.
    """
    side = size * (4 if size <= 128 else 2)
    canvas = _background(scene, side)
    if scene.object:
        _object(_Pen(canvas, scene.style), scene.object, scene.object_x)
    figure = _figure(scene.animal)
    pen = _Pen(canvas, scene.style, (scene.x + figure.shift * scene.size, scene.y), scene.size)
    _animal(pen, figure, _BODY[scene.colour])
    if scene.hat:
        top = (scene.x + (figure.shift + figure.hat[0]) * scene.size, scene.y + figure.hat[1] * scene.size)
        hat_pen = _Pen(canvas, scene.style, top, scene.size)
        for part in _hat(scene.hat):
            hat_pen.part(part.shapes, part.colour)  # type: ignore[arg-type]  # a hat has its own colours
    return _tinted(canvas.resize((size, size), Image.Resampling.BOX), scene.light)


def _animal(pen: _Pen, figure: _Figure, body: RGB) -> None:
    if pen.style == "photo":
        pen.veil([_Ellipse(0.04, -0.01, 0.4, 0.055)], (40, 40, 60), 0.32)
    dark = max(body) < 80
    shades = {"body": body, "shade": _mix(body, (140, 140, 156), 0.3) if dark else _lit(body, 0.78)}
    shades["pale"] = _mix(body, (255, 250, 240), 0.35 if dark else 0.5)
    for part in figure.parts:
        colour = shades[part.colour] if isinstance(part.colour, str) else part.colour
        pen.part(part.shapes, colour, body=part.colour == "body")
    for x, y, r in figure.eyes:
        pen.fill([_dot(x, y, r * 1.2)], _INK)
        pen.fill([_dot(x, y, r)], figure.iris or (255, 255, 255))
        pen.fill([_dot(x - 0.2 * r, y + 0.1 * r, r * 0.66)], (34, 28, 36))
        pen.fill([_dot(x + 0.1 * r, y - 0.3 * r, r * 0.26)], (255, 255, 255))


@functools.cache
def _tint(light: str, size: int) -> np.ndarray:
    """The light's gain, (size, 1, 3): from the top of the picture to its bottom."""
    top, bottom = (np.array(gain) for gain in _TINT[light])
    share = ((np.arange(size) + 0.5) / size)[:, None, None]
    return (top + (bottom - top) * share).astype(np.float32)


def _tinted(picture: Image.Image, light: str) -> Image.Image:
    pixels = np.asarray(picture, np.float32) * _tint(light, picture.height)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
