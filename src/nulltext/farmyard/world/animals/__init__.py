"""How animals and their hats look."""

import functools

from nulltext.farmyard.world.animals import hoofed, small
from nulltext.farmyard.world.animals.figure import BODY, Figure
from nulltext.farmyard.world.animals.hats import hat_of

__all__ = ["BODY", "FIGURES", "Figure", "figure_of", "hat_of"]

FIGURES = {
    "sheep": hoofed.sheep,
    "horse": hoofed.horse,
    "cow": hoofed.cow,
    "pig": hoofed.pig,
    "elk": hoofed.elk,
    "dog": small.dog,
    "cat": small.cat,
    "rabbit": small.rabbit,
    "chicken": small.chicken,
    "duck": small.duck,
}
"""What draws each animal."""


@functools.cache
def figure_of(animal: str) -> Figure:
    """How an animal is drawn."""
    return FIGURES[animal]()
