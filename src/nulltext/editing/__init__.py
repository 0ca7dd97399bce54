"""Edits of an inverted picture with words."""

from nulltext.editing.edit import Edited, EditResult, edit
from nulltext.editing.kinds import KINDS, Kind
from nulltext.editing.options import Edit
from nulltext.editing.regions import REGIONS, Region

__all__ = ["KINDS", "REGIONS", "Edit", "EditResult", "Edited", "Kind", "Region", "edit"]
