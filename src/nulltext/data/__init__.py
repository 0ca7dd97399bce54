"""Pictures as people have them: decoded, turned, cut, described; masks and metadata files beside them."""

from nulltext.data.frame import Frame
from nulltext.data.picture import Picture, picture_from, read_picture

__all__ = ["Frame", "Picture", "picture_from", "read_picture"]
