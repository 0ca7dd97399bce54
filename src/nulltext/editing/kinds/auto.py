"""Kinds that take replace or refine, whichever suits the prompts."""

from nulltext.editing.kinds.base import Kind, RowControl
from nulltext.editing.kinds.refine import Refine
from nulltext.editing.kinds.replace import Replace, suits_replace
from nulltext.editing.tokens import Tokens
from nulltext.errors import UserError


class Auto(Kind):
    """Replace where the prompts have equally many words and differ in some, refine otherwise."""

    def chosen(self, source: Tokens, target: Tokens) -> Kind:
        """Whichever of the two suits the prompts."""
        kind = Replace if suits_replace(source, target) else Refine
        return kind(self.cross_replace, self.self_replace, self.equalizer, self.compat)

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The control of the kind that it chooses."""
        return self.chosen(source, target).control(source, target, steps)


class Reweight(Auto):
    """Multiplies the attention of words (Prompt-to-Prompt, section 3.3), on top of replace or refine."""

    def __post_init__(self) -> None:
        """Refuses to weigh nothing."""
        super().__post_init__()
        if not self.equalizer:
            raise UserError("kind reweight needs words to weigh, such as --equalizer hat:2.0")
