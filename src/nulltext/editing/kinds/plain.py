"""No attention control: the target prompt alone."""

from nulltext.editing.kinds.base import Kind
from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.tokens import Tokens
from nulltext.errors import UserError


class Plain(Kind):
    """Nothing of the source's attention is used."""

    def __post_init__(self) -> None:
        """Refuses an equalizer, which would do nothing."""
        super().__post_init__()
        if self.equalizer:
            raise UserError("kind plain has no attention control, so no equalizer; use kind: reweight")

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The control that changes nothing."""
        return RowControl.nothing(steps, target.length)
