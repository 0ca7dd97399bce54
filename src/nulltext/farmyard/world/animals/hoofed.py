"""The animals with hooves: sheep, horse, cow, pig and elk."""

import math

from nulltext.farmyard.world.animals.figure import ANTLER, BLOND, DARK, HORN, PINK, Figure, legs
from nulltext.farmyard.world.drawing.shapes import Ellipse, bend, dot, limb, part, patch


def sheep() -> Figure:
    """A dark face in a cloud of wool."""
    ring = [2 * math.pi * k / 11 for k in range(11)]
    wool = [dot(0.06 + 0.33 * math.cos(a), -0.47 + 0.2 * math.sin(a), 0.125) for a in ring]
    return Figure(
        parts=(
            *legs(DARK, (-0.07, 0.3), -0.3, 0.042, None),
            *legs(DARK, (-0.18, 0.19), -0.3, 0.048, None),
            part("body", Ellipse(0.06, -0.47, 0.34, 0.23), *wool),
            part(
                DARK,
                limb((-0.27, -0.6), (-0.19, -0.55), r=0.045),
                limb((-0.47, -0.6), (-0.55, -0.55), r=0.045),
            ),
            part(DARK, Ellipse(-0.37, -0.54, 0.145, 0.175)),
            part("body", dot(-0.37, -0.71, 0.09), dot(-0.46, -0.68, 0.065), dot(-0.28, -0.68, 0.07)),
            part(PINK, Ellipse(-0.38, -0.42, 0.042, 0.026)),
        ),
        eyes=((-0.44, -0.55, 0.055), (-0.315, -0.55, 0.055)),
        hat=(-0.37, -0.78),
    )


def horse() -> Figure:
    """A long neck with a blond mane."""
    return Figure(
        parts=(
            part(BLOND, bend((0.36, -0.58), (0.48, -0.54), (0.51, -0.36), (0.47, -0.17), r=0.055)),
            *legs("shade", (-0.13, 0.2), -0.4, 0.043),
            *legs("body", (-0.23, 0.31), -0.4, 0.047),
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
            part(BLOND, bend((-0.33, -0.94), (-0.2, -0.92), (-0.1, -0.76), (-0.04, -0.58), r=0.056)),
            part(DARK, dot(-0.52, -0.71, 0.02)),
        ),
        eyes=((-0.345, -0.85, 0.058),),
        hat=(-0.27, -0.98),
        shift=0.02,
    )


def cow() -> Figure:
    """A square body with spots, horns and a pink muzzle."""
    tail = part(
        "shade", bend((0.44, -0.7), (0.52, -0.6), (0.51, -0.4), r=0.026), Ellipse(0.51, -0.33, 0.048, 0.08)
    )
    return Figure(
        parts=(
            tail,
            *legs("shade", (-0.08, 0.25), -0.35, 0.055),
            part(PINK, Ellipse(0.14, -0.26, 0.1, 0.085)),
            *legs("body", (-0.2, 0.37), -0.35, 0.06),
            part("body", patch((-0.21, -0.7), (0.38, -0.7), (0.38, -0.36), (-0.21, -0.36), r=0.075)),
            part("shade", Ellipse(0.1, -0.64, 0.13, 0.085), Ellipse(0.34, -0.47, 0.08, 0.1)),
            part(
                HORN,
                bend((-0.44, -0.78), (-0.53, -0.84), (-0.51, -0.96), r=0.034),
                bend((-0.28, -0.78), (-0.19, -0.84), (-0.21, -0.96), r=0.034),
            ),
            part(
                "shade",
                limb((-0.46, -0.74), (-0.56, -0.71), r=0.05),
                limb((-0.26, -0.74), (-0.16, -0.71), r=0.05),
            ),
            part("body", Ellipse(-0.36, -0.67, 0.15, 0.165)),
            part(PINK, Ellipse(-0.38, -0.54, 0.155, 0.1)),
            part(DARK, dot(-0.44, -0.54, 0.026), dot(-0.33, -0.54, 0.026)),
        ),
        eyes=((-0.43, -0.71, 0.055), (-0.295, -0.71, 0.055)),
        hat=(-0.36, -0.84),
        shift=0.03,
    )


def pig() -> Figure:
    """Round, with a snout and a curl of a tail."""
    curl = [(0.42, -0.44), (0.5, -0.46), (0.53, -0.55), (0.46, -0.58), (0.45, -0.5), (0.56, -0.47)]
    return Figure(
        parts=(
            part(PINK, bend(*curl, r=0.026)),
            *legs("shade", (-0.03, 0.17), -0.2, 0.06),
            *legs("body", (-0.15, 0.3), -0.2, 0.064),
            part("body", Ellipse(0.08, -0.39, 0.37, 0.295)),
            part("shade", patch((-0.45, -0.56), (-0.49, -0.76), (-0.33, -0.64), r=0.025)),
            part("shade", patch((-0.22, -0.64), (-0.07, -0.76), (-0.1, -0.56), r=0.025)),
            part("body", Ellipse(-0.28, -0.47, 0.215, 0.2)),
            part(PINK, Ellipse(-0.37, -0.41, 0.115, 0.09)),
            part(DARK, Ellipse(-0.41, -0.41, 0.022, 0.035), Ellipse(-0.33, -0.41, 0.022, 0.035)),
        ),
        eyes=((-0.385, -0.55, 0.055), (-0.225, -0.55, 0.055)),
        hat=(-0.28, -0.68),
        shift=-0.01,
    )


def elk() -> Figure:
    """Long legs and two antlers."""
    return Figure(
        parts=(
            *legs("shade", (-0.13, 0.2), -0.5, 0.036),
            *legs("body", (-0.22, 0.29), -0.5, 0.04),
            part("pale", Ellipse(0.36, -0.6, 0.06, 0.06)),
            part(
                ANTLER,
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
            part(DARK, dot(-0.51, -0.78, 0.034)),
        ),
        eyes=((-0.31, -0.87, 0.055),),
        hat=(-0.26, -0.96),
        shift=0.09,
    )
