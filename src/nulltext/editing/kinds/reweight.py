"""Words made louder or softer."""

from nulltext.editing.kinds.auto import Auto
from nulltext.errors import UserError


class Reweight(Auto):
    """Multiplies the attention of words (Prompt-to-Prompt, section 3.3), on top of replace or refine."""

    def __post_init__(self) -> None:
        """Refuses to weigh nothing."""
        super().__post_init__()
        if not self.equalizer:
            raise UserError("kind reweight needs words to weigh, such as --equalizer hat:2.0")
