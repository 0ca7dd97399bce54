"""The hats."""

import functools

from nulltext.farmyard.world.drawing.shapes import Ellipse, Part, dot, limb, part, patch


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
