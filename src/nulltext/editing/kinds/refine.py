"""Words added: those that both prompts have see where they were seen, new ones where they see themselves."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nulltext.editing.kinds.base import Kind
from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.tokens import Tokens


class Refine(Kind):
    """Keeps the words that both prompts have and lets new ones act (Prompt-to-Prompt, section 3.2)."""

    def control(self, source: Tokens, target: Tokens, steps: int) -> RowControl:
        """The source's cross-attention for every token that has its counterpart there."""
        mapper, mapped = refine_mapper(source, target, compat=self.compat)
        return self.windowed(mapper, mapped, target, steps)


def refine_mapper(source: Tokens, target: Tokens, *, compat: bool = False) -> tuple[Tensor, Tensor]:
    """Which source token's attention each target token takes, by alignment of their ids.

    Args:
        source: The source prompt.
        target: The target prompt.
        compat: Copy the reference, whose padding reads the same position of the source even where that is a word.

    Returns:
        The mapper (L target, L source): each target token reads the source token it is aligned with; a source token
        that the target lacks has an empty column. And (L target,): 1 where aligned, 0 where new.
    """
    aligned = needleman_wunsch(source.ids, target.ids)
    mapper, mapped = torch.zeros(target.length, source.length), torch.ones(target.length)
    for j, i in enumerate(aligned):
        if i < 0:
            mapped[j] = 0
        else:
            mapper[j, i] = 1
    for j in range(len(target.ids), target.length):
        beyond = j if compat else len(source.ids) + j - len(target.ids)
        mapper[j, min(beyond, source.length - 1)] = 1
    return mapper, mapped


def needleman_wunsch(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """The position in source of each element of target, -1 for a new one; ties go to the new element.

    Global alignment (Needleman and Wunsch 1970) with gap 0, match 1, mismatch -1.
    """
    rows, columns = len(source), len(target)
    score = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            match = 1 if source[i - 1] == target[j - 1] else -1
            score[i][j] = max(score[i][j - 1], score[i - 1][j], score[i - 1][j - 1] + match)
    aligned, i, j = [-1] * columns, rows, columns
    while i > 0 and j > 0:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            aligned[j] = i
    return aligned
