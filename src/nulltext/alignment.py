"""Which token of one prompt answers to which of another.

Prompt-to-Prompt (Hertz et al., arXiv 2208.01626, section 3) carries the attention of a source prompt over to a target
prompt. A mapper here is a matrix (L target, L source) that acts on one pixel's attention to the source's tokens:
``a_new = mapper @ a_source``. Every column sums to one, so each source token hands on all of its attention and what
was a distribution stays one.

Words are found through the tokenizer's own offsets, never by counting decoded characters: punctuation, case, double
spaces and words of several tokens are all the same to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Tokens:
    """A prompt as its tokenizer cuts it."""

    prompt: str
    ids: tuple[int, ...]  # from the start token to the end token, without padding
    spans: tuple[tuple[int, int], ...]  # the characters of each; empty for the start and end tokens
    length: int  # L, the tokens that the text encoder reads, padding included


def tokenize(tokenizer: Any, prompt: str) -> Tokens:
    """Cuts a prompt as the text encoder sees it: no longer than it reads.

    Args:
        tokenizer: A fast transformers tokenizer (one that knows offsets), such as ``CLIPTokenizer`` of transformers 5.
        prompt: The prompt.
    """
    length = tokenizer.model_max_length
    cut = tokenizer(prompt, truncation=True, max_length=length, return_offsets_mapping=True)
    return Tokens(prompt, tuple(cut.input_ids), tuple(tuple(span) for span in cut.offset_mapping), length)


def words(prompt: str, *, compat: bool = False) -> list[tuple[int, int]]:
    """The characters (start, end) of each word; a punctuation mark is a word of its own.

    Args:
        prompt: The prompt.
        compat: Split at white space only, as the reference does.
    """
    pattern = r"\S+" if compat else WORD
    return [match.span() for match in re.finditer(pattern, prompt)]


def tokens_within(tokens: Tokens, start: int, end: int) -> tuple[int, ...]:
    """The positions of the tokens that lie in the characters start to end; none for a word that was cut off."""
    return tuple(k for k, (a, b) in enumerate(tokens.spans) if a < end and b > start)


def find_word(tokens: Tokens, word: str) -> tuple[int, ...]:
    """The positions of all tokens of a word, or of a phrase such as ``red hat``, wherever it occurs in the prompt.

    Raises:
        UserError: It does not occur, or lies beyond what the text encoder reads.
    """
    parts = [re.escape(part) for part in word.split()]
    pattern = r"(?<!\w)" + r"\s+".join(parts) + r"(?!\w)"
    matches = list(re.finditer(pattern, tokens.prompt, re.IGNORECASE)) if parts else []
    if not matches:
        raise UserError(f"there is no word {word!r} in {tokens.prompt!r}; take one of its words")
    found = tuple(k for match in matches for k in tokens_within(tokens, *match.span()))
    if not found:
        raise UserError(
            f"{word!r} lies beyond the {tokens.length} tokens that the model reads of {tokens.prompt!r}; shorten it"
        )
    return found


def has_word(tokens: Tokens, word: str) -> bool:
    """Whether ``find_word`` would find it."""
    try:
        return bool(find_word(tokens, word))
    except UserError:
        return False


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


def replace_mapper(source: Tokens, target: Tokens, *, compat: bool = False) -> Tensor:
    """The mapper of a word swap: same words one to one, a changed word's attention to the word in its place.

    A changed word of equally many tokens is mapped one to one; otherwise each source token's attention is shared
    evenly by the new word's tokens, and all later tokens move along. In the padding at the end, what runs over goes to
    the last position and what is left empty shares the attention of the source's last.

    Args:
        source: The source prompt.
        target: The target prompt, of equally many words.
        compat: Copy the reference, which maps j to j after the last changed word and so misaligns every later token
            when the token counts differ.

    Returns:
        (L target, L source); columns sum to one (not with ``compat``).

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


def refine_mapper(source: Tokens, target: Tokens, *, compat: bool = False) -> tuple[Tensor, Tensor]:
    """The mapper of an elaborated prompt, by Needleman-Wunsch on token ids (gap 0, match 1, mismatch -1).

    Args:
        source: The source prompt.
        target: The target prompt.
        compat: Copy the reference, whose padding reads the same position of the source even where that is a word.

    Returns:
        The mapper (L target, L source): each target token reads the source token it was aligned with. And which target
        tokens have one (L target,): 1 where aligned, 0 where new. A source token that the target lacks has an empty
        column.
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


def needleman_wunsch(source: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
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


def suits_replace(source: Tokens, target: Tokens) -> bool:
    """Whether the prompts have equally many words and differ in some."""
    same_count = len(words(source.prompt)) == len(words(target.prompt))
    return same_count and bool(changed_words(source, target))


def equalizer(target: Tokens, factors: Mapping[str, float]) -> Tensor:
    """How much louder each target token is heard (L,): one, but for the tokens of the words given.

    Raises:
        UserError: A word is not in the target prompt.
    """
    loudness = torch.ones(target.length)
    for word, factor in factors.items():
        loudness[list(find_word(target, word))] = factor
    return loudness
