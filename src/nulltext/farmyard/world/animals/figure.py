"""What an animal is made of, and the colours of the farm's animals."""

from collections.abc import Sequence
from dataclasses import dataclass

from nulltext.farmyard.world.drawing.shapes import RGB, Part, Point, limb, part

BODY: dict[str, RGB] = {
    "white": (246, 243, 238),
    "black": (50, 48, 56),
    "brown": (136, 84, 48),
    "gray": (148, 152, 162),
    "orange": (242, 146, 40),
    "yellow": (250, 222, 70),
    "pink": (248, 150, 196),
}
"""The colour of a body by its name."""

DARK: RGB = (74, 62, 66)
HOOF: RGB = (84, 70, 68)
PINK: RGB = (244, 164, 170)
BLOND: RGB = (240, 214, 150)
HORN: RGB = (238, 224, 192)
ANTLER: RGB = (190, 146, 92)
RED: RGB = (222, 52, 48)
BEAK: RGB = (248, 184, 48)


@dataclass(frozen=True)
class Figure:
    """An animal: its parts from back to front, and where eyes and hat sit."""

    parts: tuple[Part, ...]
    eyes: tuple[tuple[float, float, float], ...]  # (x, y, radius)
    hat: Point  # the top of the head
    iris: RGB | None = None
    shift: float = 0.0  # moves the whole animal, so that it is in the middle


def legs(
    colour: RGB | str, feet: Sequence[float], top: float, r: float, hoof: RGB | None = HOOF
) -> list[Part]:
    """A pair of legs from `top` down to the feet, 2 r thick, with hooves of a colour or none."""
    legs = [part(colour, *(limb((x, top), (x, -r), r=r) for x in feet))]
    if hoof:
        legs.append(part(hoof, *(limb((x, -0.05), (x, -r * 0.8), r=r * 0.95) for x in feet)))
    return legs
