"""Words swapped one for one: each new word sees where the word in its place was seen."""

import torch
from torch import Tensor

from nulltext.editing.kinds.base import Kind
from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.tokens import Tokens, tokens_within, words
from nulltext.errors import UserError


class Replace(Kind):
    """Swaps words of prompts with equally many words (Prompt-to-Prompt, section 3.1)."""

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The source's cross-attention, handed on word by word."""
        mapper = replace_mapper(source, target, compat=self.compat)
        return self.windowed(mapper, torch.ones(target.length), target, steps)


def replace_mapper(source: Tokens, target: Tokens, *, compat: bool = False) -> Tensor:
    """Which source token's attention each target token takes, for swapped words.

    A changed word of equally many tokens is mapped one to one; otherwise the new word's tokens get equal parts of each
    source token's attention, and all later tokens move along. In the padding at the end, what runs over goes to the
    last position, and positions left empty get equal parts of the source's last.

    Args:
        source: The source prompt.
        target: The target prompt, of equally many words.
        compat: Copy the reference, which maps j to j after the last changed word and so misaligns every later token
            when the token counts differ.

    Returns:
        (L target, L source): ``a_target = mapper @ a_source`` at each pixel. Columns sum to one (not with ``compat``),
        so that what was a distribution stays one.

    Raises:
        UserError: The prompts have unequal word counts.
    """
    changed = changed_words(source, target, compat=compat)
    mapper = torch.zeros(target.length, source.length)
    i = j = 0
    while i < source.length and j < target.length:
        if changed and changed[0][0][0] == i:
            ours, theirs = changed.pop(0)
            mapper[j : j + len(theirs), i : i + len(ours)] = (
                torch.eye(len(ours)) if len(ours) == len(theirs) else 1 / len(theirs)
            )
            i, j = i + len(ours), j + len(theirs)
        else:
            mapper[j, j if compat and not changed else i] = 1
            i, j = i + 1, j + 1
    if not compat and i < source.length:
        mapper[-1, i:] = 1
    elif not compat and j < target.length:
        mapper[j - 1 :, -1] = 1 / (target.length - j + 1)
    return mapper


def changed_words(
    source: Tokens, target: Tokens, *, compat: bool = False
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The words that differ between prompts of equally many words, as (source tokens, target tokens) in order.

    Raises:
        UserError: The prompts have unequal word counts.
    """
    ours, theirs = words(source.prompt, compat=compat), words(target.prompt, compat=compat)
    if len(ours) != len(theirs):
        raise UserError(
            f"replace needs prompts of equal length: {source.prompt!r} has {len(ours)} words, "
            f"{target.prompt!r} {len(theirs)}. Use kind: refine"
        )
    changed = []
    for one, other in zip(ours, theirs, strict=True):
        a, b = tokens_within(source, *one), tokens_within(target, *other)
        if a and b and [source.ids[k] for k in a] != [target.ids[k] for k in b]:
            changed.append((a, b))
    return changed


def suits_replace(source: Tokens, target: Tokens) -> bool:
    """Whether the prompts have equally many words and differ in some."""
    same_count = len(words(source.prompt)) == len(words(target.prompt))
    return same_count and bool(changed_words(source, target))
