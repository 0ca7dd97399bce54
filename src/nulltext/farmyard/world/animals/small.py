"""The animals of house and yard: dog, cat, rabbit, chicken and duck."""

from nulltext.farmyard.world.animals.figure import BEAK, DARK, PINK, RED, Figure, legs
from nulltext.farmyard.world.drawing.shapes import Ellipse, bend, dot, limb, part, patch


def dog() -> Figure:
    """Long ears, a tail that points up, a red tongue."""
    return Figure(
        parts=(
            *legs("shade", (-0.05, 0.2), -0.3, 0.05, None),
            *legs("body", (-0.18, 0.31), -0.3, 0.056, None),
            part("shade", limb((-0.41, -0.82), (-0.5, -0.69), r=0.055)),
            part(
                "body",
                bend((0.32, -0.5), (0.44, -0.6), (0.45, -0.78), (0.4, -0.86), r=0.045),
                Ellipse(0.08, -0.42, 0.31, 0.155),
                Ellipse(-0.11, -0.43, 0.18, 0.19),
                limb((-0.15, -0.5), (-0.22, -0.64), r=0.12),
                Ellipse(-0.26, -0.7, 0.195, 0.18),
            ),
            part(RED, limb((-0.37, -0.58), (-0.37, -0.52), r=0.042)),
            part("pale", Ellipse(-0.36, -0.63, 0.125, 0.088)),
            part((34, 28, 34), Ellipse(-0.42, -0.68, 0.052, 0.042)),
            part("shade", limb((-0.12, -0.81), (-0.04, -0.6), r=0.072)),
        ),
        eyes=((-0.36, -0.77, 0.056), (-0.22, -0.77, 0.056)),
        hat=(-0.26, -0.9),
    )


def cat() -> Figure:
    """It sits; green eyes, pointed ears, a tail like an S."""
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
            part(PINK, patch((-0.285, -0.87), (-0.29, -0.95), (-0.22, -0.9), r=0.01)),
            part(PINK, patch((0.07, -0.87), (0.08, -0.95), (0.01, -0.9), r=0.01)),
            part("pale", Ellipse(-0.13, -0.645, 0.1, 0.068)),
            part(PINK, Ellipse(-0.13, -0.68, 0.038, 0.028)),
        ),
        eyes=((-0.215, -0.755, 0.066), (-0.045, -0.755, 0.066)),
        hat=(-0.105, -0.93),
        iris=(150, 206, 96),
        shift=-0.02,
    )


def chicken() -> Figure:
    """A red comb, a beak, fanned tail feathers."""
    feet = [limb((x, -0.28), (x, -0.03), r=0.027) for x in (0.0, 0.14)]
    toes = [limb((x - 0.1, -0.026), (x + 0.03, -0.026), r=0.026) for x in (0.0, 0.14)]
    return Figure(
        parts=(
            part(BEAK, *feet, *toes),
            part(RED, dot(-0.28, -0.91, 0.06), dot(-0.19, -0.95, 0.065), dot(-0.1, -0.91, 0.06)),
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
            part(RED, Ellipse(-0.32, -0.66, 0.045, 0.065)),
            part(BEAK, patch((-0.31, -0.83), (-0.45, -0.76), (-0.31, -0.72), r=0.015)),
        ),
        eyes=((-0.22, -0.82, 0.06),),
        hat=(-0.18, -0.95),
        shift=-0.01,
    )


def duck() -> Figure:
    """Low, with a long flat bill and a tail that points up."""
    feet = [patch((x - 0.12, 0.0), (x + 0.05, 0.0), (x, -0.06), r=0.018) for x in (-0.02, 0.16)]
    return Figure(
        parts=(
            part(BEAK, *(limb((x, -0.16), (x, -0.03), r=0.03) for x in (0.0, 0.18)), *feet),
            part(
                "body",
                patch((0.24, -0.42), (0.56, -0.6), (0.42, -0.24), r=0.04),
                Ellipse(0.09, -0.31, 0.38, 0.2),
                limb((-0.17, -0.38), (-0.24, -0.66), r=0.105),
                Ellipse(-0.25, -0.71, 0.165, 0.15),
            ),
            part("pale", limb((-0.28, -0.48), (-0.12, -0.5), r=0.035)),
            part(
                "shade",
                Ellipse(0.12, -0.34, 0.2, 0.115),
                patch((0.16, -0.4), (0.42, -0.36), (0.2, -0.26), r=0.03),
            ),
            part(BEAK, patch((-0.35, -0.76), (-0.59, -0.69), (-0.59, -0.64), (-0.35, -0.62), r=0.03)),
            part(DARK, limb((-0.58, -0.665), (-0.4, -0.675), r=0.01)),
        ),
        eyes=((-0.29, -0.76, 0.058),),
        hat=(-0.24, -0.85),
        shift=0.03,
    )


def rabbit() -> Figure:
    """It sits; two long ears."""
    return Figure(
        parts=(
            part("pale", dot(0.41, -0.2, 0.115)),
            part("body", Ellipse(0.11, -0.28, 0.31, 0.27)),
            part("shade", Ellipse(0.2, -0.2, 0.17, 0.15)),
            part("body", limb((0.06, -0.055), (0.24, -0.055), r=0.06)),
            part("shade", limb((-0.05, -0.62), (0.03, -1.06), r=0.075)),
            part(PINK, limb((-0.045, -0.7), (0.025, -1.03), r=0.034)),
            part(
                "body",
                limb((-0.28, -0.62), (-0.4, -1.06), r=0.075),
                limb((-0.12, -0.32), (-0.2, -0.06), r=0.066),
                limb((-0.04, -0.3), (-0.08, -0.06), r=0.066),
                Ellipse(-0.19, -0.54, 0.225, 0.19),
            ),
            part(PINK, limb((-0.295, -0.7), (-0.385, -1.03), r=0.034)),
            part("pale", Ellipse(-0.27, -0.45, 0.11, 0.075)),
            part((255, 252, 246), patch((-0.3, -0.42), (-0.24, -0.42), (-0.25, -0.35), (-0.29, -0.35))),
            part(PINK, Ellipse(-0.28, -0.49, 0.042, 0.03)),
        ),
        eyes=((-0.31, -0.57, 0.06), (-0.15, -0.57, 0.06)),
        hat=(-0.185, -0.71),
        shift=-0.02,
    )
