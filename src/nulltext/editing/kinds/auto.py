"""The kind that suits the prompts."""

from nulltext.editing.kinds.base import Kind
from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.kinds.refine import Refine
from nulltext.editing.kinds.replace import Replace, suits_replace
from nulltext.editing.tokens import Tokens


class Auto(Kind):
    """Replace where the prompts have equally many words and differ in some, refine otherwise."""

    def chosen(self, source: Tokens, target: Tokens) -> Kind:
        """Whichever of the two suits the prompts."""
        return self.as_kind(Replace if suits_replace(source, target) else Refine)

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The control of the kind that it chooses."""
        return self.chosen(source, target).control(source, target, steps)
