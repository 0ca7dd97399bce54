"""Pictures as people have them: decoded, turned, cut, described; masks and metadata files beside them."""

from nulltext.data.decode import MAX_PIXELS
from nulltext.data.find import find_pictures, unique_names
from nulltext.data.frame import Frame, Placement, parse_crop, parse_size
from nulltext.data.masks import read_mask
from nulltext.data.metadata import Row, read_metadata
from nulltext.data.picture import Picture, picture_from, read_picture
from nulltext.data.prompts import Captioner, Prompt, find_prompt, weights_note

__all__ = [
    "MAX_PIXELS",
    "Captioner",
    "Frame",
    "Picture",
    "Placement",
    "Prompt",
    "Row",
    "find_pictures",
    "find_prompt",
    "parse_crop",
    "parse_size",
    "picture_from",
    "read_mask",
    "read_metadata",
    "read_picture",
    "unique_names",
    "weights_note",
]
