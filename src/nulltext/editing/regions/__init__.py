"""Regions: where an edit may change the picture, one file each; all of them are listed in ``REGIONS``."""

from nulltext.editing.options import AUTO, IMPORT_PATH, Edit
from nulltext.editing.regions.base import Context, Region, Source
from nulltext.editing.regions.given import Given
from nulltext.editing.regions.noise_difference import NoiseDifference
from nulltext.editing.regions.words import Words
from nulltext.imports import find_class

REGIONS: dict[str, type[Region]] = {AUTO: NoiseDifference, "words": Words, "given": Given}


def regions_of(edit: Edit) -> list[Region]:
    """What finds the mask of an edit, from its ``local_blend``; a given mask bounds them all and is not among them.

    Raises:
        UserError: An import path that leads to no region.
    """
    named = [b for b in edit.blends if b == AUTO or IMPORT_PATH.fullmatch(b)]
    found = [find_class(name, REGIONS, Region, "local_blend")() for name in named]  # type: ignore[type-abstract]
    return [*found, *([Words()] if edit.blend_words else [])]


__all__ = ["REGIONS", "Context", "Given", "NoiseDifference", "Region", "Source", "Words", "regions_of"]
