"""Regions: where an edit may change the picture; all of them are listed in ``REGIONS``."""

from nulltext.editing.options import AUTO, Edit
from nulltext.editing.regions.base import Context, Region, Source
from nulltext.editing.regions.given import Given, Words
from nulltext.editing.regions.noise_difference import NoiseDifference
from nulltext.imports import find_class

REGIONS: dict[str, type[Region]] = {AUTO: NoiseDifference, "words": Words, "given": Given}


def regions_of(edit: Edit) -> list[Region]:
    """What finds the mask of an edit, from its ``local_blend``; a given mask bounds them all and is not among them."""
    words = edit.blend_words
    named = [name for name in edit.blends if name not in words]
    found = [find_class(name, REGIONS, Region, "local_blend")() for name in named]  # type: ignore[type-abstract]
    return [*found, Words()] if words else found


__all__ = ["REGIONS", "Context", "Given", "NoiseDifference", "Region", "Source", "Words", "regions_of"]
