"""What suits a model's edits, as its folder says."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from nulltext.errors import UserError

EDITING = "editing.json"
"""A file that may lie in a model's folder: the fields of ``EditDefaults``."""
MOST = (sys.float_info.max, 1, 1000)  # of each field; the least is 0


@dataclass(frozen=True)
class EditDefaults:
    """What suits a model's edits; the defaults are for a model that does not say."""

    masked_guidance: float = 3.0  # w under a mask
    masked_windows: float = 0.4  # cross_ and self_replace under a mask, where an edit does not set them
    detail_steps: int = 0  # steps of the plain inversion that edits take their fine detail from

    @classmethod
    def read(cls, folder: Path) -> EditDefaults:
        """What the model's own ``editing.json`` says, if it has one.

        Raises:
            UserError: A file that is not an object of these numbers.
        """
        path = folder / EDITING
        if not path.is_file():
            return cls()
        with suppress(OSError, ValueError, TypeError, OverflowError):
            given = json.loads(path.read_text(encoding="utf-8"))
            says = cls(**given)
            says = cls(float(says.masked_guidance), float(says.masked_windows), int(says.detail_steps))
            if given and all(0 <= x <= most for x, most in zip(astuple(says), MOST, strict=True)):
                return says
        raise UserError(
            f'{path} must hold {{"masked_guidance": 1.5, "masked_windows": 0.4, "detail_steps": 10}}, '
            "a number from 0, one up to 1 and one up to 1000, or some of them; or remove it"
        )
