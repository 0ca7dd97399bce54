"""The picture of a scene, and where two scenes differ."""

from nulltext.farmyard.world.drawing.picture import changed_pixels, draw

__all__ = ["changed_pixels", "draw"]
