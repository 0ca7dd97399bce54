"""The farmyard's world: scenes, their captions, their pictures. It knows no torch."""

from nulltext.farmyard.world.drawing import changed_pixels, draw
from nulltext.farmyard.world.scene import HELD_OUT_SEEDS, Scene, replace
from nulltext.farmyard.world.worlds import (
    SHIPPED,
    WORLD_128,
    World,
    caption,
    random_scene,
    world_of,
)

__all__ = [
    "HELD_OUT_SEEDS",
    "SHIPPED",
    "WORLD_128",
    "Scene",
    "World",
    "caption",
    "changed_pixels",
    "draw",
    "random_scene",
    "replace",
    "world_of",
]
