"""How animals and their hats look."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from nulltext.farmyard.shapes import RGB, Ellipse, Part, Point, bend, dot, limb, part, patch

BODY: dict[str, RGB] = {
    "white": (246, 243, 238),
    "black": (50, 48, 56),
    "brown": (136, 84, 48),
    "gray": (148, 152, 162),
    "orange": (242, 146, 40),
}
"""The colour of a body by its name."""

_DARK: RGB = (74, 62, 66)
_HOOF: RGB = (84, 70, 68)
_PINK: RGB = (244, 164, 170)
_BLOND: RGB = (240, 214, 150)
_HORN: RGB = (238, 224, 192)
_ANTLER: RGB = (190, 146, 92)
_RED: RGB = (222, 52, 48)
_BEAK: RGB = (248, 184, 48)


@dataclass(frozen=True)
class Figure:
    """An animal: its parts from back to front, and where eyes and hat sit."""

    parts: tuple[Part, ...]
    eyes: tuple[tuple[float, float, float], ...]  # (x, y, radius)
    hat: Point  # the top of the head
    iris: RGB | None = None
    shift: float = 0.0  # moves the whole animal, so that it stands in the middle


def _legs(
    colour: RGB | str, feet: Sequence[float], top: float, r: float, hoof: RGB | None = _HOOF
) -> list[Part]:
    legs = [part(colour, *(limb((x, top), (x, -r), r=r) for x in feet))]
    if hoof:
        legs.append(part(hoof, *(limb((x, -0.05), (x, -r * 0.8), r=r * 0.95) for x in feet)))
    return legs


def _sheep() -> Figure:
    ring = [2 * math.pi * k / 11 for k in range(11)]
    wool = [dot(0.06 + 0.33 * math.cos(a), -0.47 + 0.2 * math.sin(a), 0.125) for a in ring]
    return Figure(
        parts=(
            *_legs(_DARK, (-0.07, 0.3), -0.3, 0.042, None),
            *_legs(_DARK, (-0.18, 0.19), -0.3, 0.048, None),
            part("body", Ellipse(0.06, -0.47, 0.34, 0.23), *wool),
            part(
                _DARK,
                limb((-0.27, -0.6), (-0.19, -0.55), r=0.045),
                limb((-0.47, -0.6), (-0.55, -0.55), r=0.045),
            ),
            part(_DARK, Ellipse(-0.37, -0.54, 0.145, 0.175)),
            part("body", dot(-0.37, -0.71, 0.09), dot(-0.46, -0.68, 0.065), dot(-0.28, -0.68, 0.07)),
            part(_PINK, Ellipse(-0.38, -0.42, 0.042, 0.026)),
        ),
        eyes=((-0.44, -0.55, 0.055), (-0.315, -0.55, 0.055)),
        hat=(-0.37, -0.78),
    )


def _horse() -> Figure:
    return Figure(
        parts=(
            part(_BLOND, bend((0.36, -0.58), (0.48, -0.54), (0.51, -0.36), (0.47, -0.17), r=0.055)),
            *_legs("shade", (-0.13, 0.2), -0.4, 0.043),
            *_legs("body", (-0.23, 0.31), -0.4, 0.047),
            part(
                "body",
                Ellipse(0.05, -0.5, 0.3, 0.155),
                Ellipse(0.23, -0.5, 0.17, 0.175),
                Ellipse(-0.15, -0.5, 0.17, 0.17),
                patch((-0.29, -0.48), (-0.04, -0.56), (-0.19, -0.9), (-0.35, -0.86), r=0.025),
                limb((-0.29, -0.87), (-0.47, -0.71), r=0.088),
                patch((-0.3, -1.05), (-0.21, -0.91), (-0.36, -0.93), r=0.012),
            ),
            part("pale", Ellipse(-0.475, -0.7, 0.092, 0.085)),
            part(_BLOND, bend((-0.33, -0.94), (-0.2, -0.92), (-0.1, -0.76), (-0.04, -0.58), r=0.056)),
            part(_DARK, dot(-0.52, -0.71, 0.02)),
        ),
        eyes=((-0.345, -0.85, 0.058),),
        hat=(-0.27, -0.98),
        shift=0.02,
    )


def _cow() -> Figure:
    tail = part(
        "shade", bend((0.44, -0.7), (0.52, -0.6), (0.51, -0.4), r=0.026), Ellipse(0.51, -0.33, 0.048, 0.08)
    )
    return Figure(
        parts=(
            tail,
            *_legs("shade", (-0.08, 0.25), -0.35, 0.055),
            part(_PINK, Ellipse(0.14, -0.26, 0.1, 0.085)),
            *_legs("body", (-0.2, 0.37), -0.35, 0.06),
            part("body", patch((-0.21, -0.7), (0.38, -0.7), (0.38, -0.36), (-0.21, -0.36), r=0.075)),
            part("shade", Ellipse(0.1, -0.64, 0.13, 0.085), Ellipse(0.34, -0.47, 0.08, 0.1)),
            part(
                _HORN,
                bend((-0.44, -0.78), (-0.53, -0.84), (-0.51, -0.96), r=0.034),
                bend((-0.28, -0.78), (-0.19, -0.84), (-0.21, -0.96), r=0.034),
            ),
            part(
                "shade",
                limb((-0.46, -0.74), (-0.56, -0.71), r=0.05),
                limb((-0.26, -0.74), (-0.16, -0.71), r=0.05),
            ),
            part("body", Ellipse(-0.36, -0.67, 0.15, 0.165)),
            part(_PINK, Ellipse(-0.38, -0.54, 0.155, 0.1)),
            part(_DARK, dot(-0.44, -0.54, 0.026), dot(-0.33, -0.54, 0.026)),
        ),
        eyes=((-0.43, -0.71, 0.055), (-0.295, -0.71, 0.055)),
        hat=(-0.36, -0.84),
        shift=0.03,
    )


def _pig() -> Figure:
    curl = [(0.42, -0.44), (0.5, -0.46), (0.53, -0.55), (0.46, -0.58), (0.45, -0.5), (0.56, -0.47)]
    return Figure(
        parts=(
            part(_PINK, bend(*curl, r=0.026)),
            *_legs("shade", (-0.03, 0.17), -0.2, 0.06),
            *_legs("body", (-0.15, 0.3), -0.2, 0.064),
            part("body", Ellipse(0.08, -0.39, 0.37, 0.295)),
            part("shade", patch((-0.45, -0.56), (-0.49, -0.76), (-0.33, -0.64), r=0.025)),
            part("shade", patch((-0.22, -0.64), (-0.07, -0.76), (-0.1, -0.56), r=0.025)),
            part("body", Ellipse(-0.28, -0.47, 0.215, 0.2)),
            part(_PINK, Ellipse(-0.37, -0.41, 0.115, 0.09)),
            part(_DARK, Ellipse(-0.41, -0.41, 0.022, 0.035), Ellipse(-0.33, -0.41, 0.022, 0.035)),
        ),
        eyes=((-0.385, -0.55, 0.055), (-0.225, -0.55, 0.055)),
        hat=(-0.28, -0.68),
        shift=-0.01,
    )


def _elk() -> Figure:
    return Figure(
        parts=(
            *_legs("shade", (-0.13, 0.2), -0.5, 0.036),
            *_legs("body", (-0.22, 0.29), -0.5, 0.04),
            part("pale", Ellipse(0.36, -0.6, 0.06, 0.06)),
            part(
                _ANTLER,
                bend((-0.32, -0.9), (-0.5, -0.97), (-0.58, -1.18), r=0.034),
                limb((-0.5, -0.97), (-0.67, -1.03), r=0.032),
                limb((-0.54, -1.05), (-0.44, -1.17), r=0.03),
                bend((-0.24, -0.9), (-0.07, -0.97), (0.01, -1.18), r=0.034),
                limb((-0.07, -0.97), (0.1, -1.03), r=0.032),
                limb((-0.03, -1.05), (-0.13, -1.17), r=0.03),
            ),
            part("shade", limb((-0.2, -0.86), (-0.1, -0.83), r=0.045)),
            part(
                "body",
                Ellipse(0.05, -0.57, 0.29, 0.14),
                Ellipse(0.22, -0.58, 0.15, 0.145),
                Ellipse(-0.12, -0.58, 0.19, 0.18),
                patch((-0.28, -0.55), (-0.02, -0.66), (-0.17, -0.86), (-0.33, -0.82), r=0.03),
                limb((-0.27, -0.86), (-0.44, -0.76), r=0.082),
            ),
            part("shade", Ellipse(-0.21, -0.56, 0.095, 0.14), dot(-0.24, -0.68, 0.06)),
            part("pale", Ellipse(-0.46, -0.755, 0.08, 0.075)),
            part(_DARK, dot(-0.51, -0.78, 0.034)),
        ),
        eyes=((-0.31, -0.87, 0.055),),
        hat=(-0.26, -0.96),
        shift=0.09,
    )


def _dog() -> Figure:
    return Figure(
        parts=(
            *_legs("shade", (-0.05, 0.2), -0.3, 0.05, None),
            *_legs("body", (-0.18, 0.31), -0.3, 0.056, None),
            part("shade", limb((-0.41, -0.82), (-0.5, -0.69), r=0.055)),
            part(
                "body",
                bend((0.32, -0.5), (0.44, -0.6), (0.45, -0.78), (0.4, -0.86), r=0.045),
                Ellipse(0.08, -0.42, 0.31, 0.155),
                Ellipse(-0.11, -0.43, 0.18, 0.19),
                limb((-0.15, -0.5), (-0.22, -0.64), r=0.12),
                Ellipse(-0.26, -0.7, 0.195, 0.18),
            ),
            part(_RED, limb((-0.37, -0.58), (-0.37, -0.52), r=0.042)),
            part("pale", Ellipse(-0.36, -0.63, 0.125, 0.088)),
            part((34, 28, 34), Ellipse(-0.42, -0.68, 0.052, 0.042)),
            part("shade", limb((-0.12, -0.81), (-0.04, -0.6), r=0.072)),
        ),
        eyes=((-0.36, -0.77, 0.056), (-0.22, -0.77, 0.056)),
        hat=(-0.26, -0.9),
    )


def _cat() -> Figure:
    return Figure(
        parts=(
            part(
                "body",
                bend((0.16, -0.08), (0.38, -0.08), (0.46, -0.24), (0.36, -0.42), (0.46, -0.6), r=0.056),
            ),
            part("body", Ellipse(0.08, -0.24, 0.24, 0.235), Ellipse(-0.04, -0.42, 0.19, 0.24)),
            part("pale", Ellipse(-0.1, -0.4, 0.1, 0.16)),
            part("shade", Ellipse(0.17, -0.15, 0.12, 0.12)),
            part(
                "body",
                limb((-0.16, -0.34), (-0.17, -0.06), r=0.06),
                limb((-0.01, -0.34), (-0.01, -0.06), r=0.06),
            ),
            part(
                "body",
                patch((-0.31, -0.8), (-0.32, -1.0), (-0.15, -0.91), r=0.022),
                patch((0.1, -0.8), (0.11, -1.0), (-0.06, -0.91), r=0.022),
                Ellipse(-0.105, -0.73, 0.235, 0.2),
            ),
            part(_PINK, patch((-0.285, -0.87), (-0.29, -0.95), (-0.22, -0.9), r=0.01)),
            part(_PINK, patch((0.07, -0.87), (0.08, -0.95), (0.01, -0.9), r=0.01)),
            part("pale", Ellipse(-0.13, -0.645, 0.1, 0.068)),
            part(_PINK, Ellipse(-0.13, -0.68, 0.038, 0.028)),
        ),
        eyes=((-0.215, -0.755, 0.066), (-0.045, -0.755, 0.066)),
        hat=(-0.105, -0.93),
        iris=(150, 206, 96),
        shift=-0.02,
    )


def _chicken() -> Figure:
    feet = [limb((x, -0.28), (x, -0.03), r=0.027) for x in (0.0, 0.14)]
    toes = [limb((x - 0.1, -0.026), (x + 0.03, -0.026), r=0.026) for x in (0.0, 0.14)]
    return Figure(
        parts=(
            part(_BEAK, *feet, *toes),
            part(_RED, dot(-0.28, -0.91, 0.06), dot(-0.19, -0.95, 0.065), dot(-0.1, -0.91, 0.06)),
            part(
                "body",
                bend((0.18, -0.4), (0.34, -0.56), (0.36, -0.82), r=0.07),
                bend((0.2, -0.38), (0.4, -0.5), (0.47, -0.72), r=0.07),
                bend((0.2, -0.36), (0.4, -0.42), (0.51, -0.57), r=0.065),
                Ellipse(0.06, -0.43, 0.29, 0.23),
                limb((-0.1, -0.5), (-0.18, -0.74), r=0.13),
                Ellipse(-0.19, -0.79, 0.15, 0.145),
            ),
            part("shade", Ellipse(0.1, -0.43, 0.16, 0.11), limb((0.16, -0.46), (0.26, -0.5), r=0.045)),
            part(_RED, Ellipse(-0.32, -0.66, 0.045, 0.065)),
            part(_BEAK, patch((-0.31, -0.83), (-0.45, -0.76), (-0.31, -0.72), r=0.015)),
        ),
        eyes=((-0.22, -0.82, 0.06),),
        hat=(-0.18, -0.95),
        shift=-0.01,
    )


@functools.cache
def figure_of(animal: str) -> Figure:
    """How an animal is drawn."""
    makers = {"sheep": _sheep, "horse": _horse, "cow": _cow, "chicken": _chicken, "pig": _pig, "elk": _elk}
    return (makers | {"dog": _dog, "cat": _cat})[animal]()


@functools.cache
def hat_of(name: str) -> tuple[Part, ...]:
    """The parts of a hat about the top of the head, in the animal's units."""
    if name == "red hat":  # a bobble hat
        dome = patch(
            (-0.15, 0.0), (-0.13, -0.12), (-0.07, -0.18), (0.07, -0.18), (0.13, -0.12), (0.15, 0.0), r=0.02
        )
        cuff = limb((-0.15, 0.0), (0.15, 0.0), r=0.045)
        return (
            part((250, 240, 232), dot(0.0, -0.23, 0.065)),
            part((226, 40, 44), dome),
            part((160, 22, 36), cuff),
        )
    if name == "blue hat":  # a top hat
        crown = patch((-0.11, 0.0), (-0.125, -0.23), (0.125, -0.23), (0.11, 0.0), r=0.015)
        band = limb((-0.1, -0.07), (0.1, -0.07), r=0.028)
        blue = (46, 84, 206)
        return (
            part(blue, crown),
            part((250, 220, 90), band),
            part(blue, limb((-0.2, 0.0), (0.2, 0.0), r=0.036)),
        )
    if name == "straw hat":
        straw, ribbon = (246, 210, 98), (172, 92, 52)
        rounded, brim = Ellipse(0.0, -0.07, 0.14, 0.125), Ellipse(0.0, 0.0, 0.27, 0.062)
        return (
            part(straw, rounded),
            part(ribbon, limb((-0.12, -0.05), (0.12, -0.05), r=0.03)),
            part(straw, brim),
        )
    cone = patch((-0.13, 0.02), (0.0, -0.25), (0.13, 0.02), r=0.02)
    stripe = limb((-0.08, -0.07), (0.08, -0.07), r=0.026)
    return (
        part((158, 78, 208), cone),
        part((112, 226, 220), stripe),
        part((255, 226, 90), dot(0.0, -0.26, 0.062)),
    )
