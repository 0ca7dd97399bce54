"""Prompts as their tokenizer cuts them, and the tokens of a word.

Words are found through the tokenizer's own offsets, never by counting decoded characters: punctuation, case, double
spaces, emoji and words of several tokens need no special care.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from nulltext.data.text import one_line
from nulltext.errors import UserError

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese and Japanese ideographs
)
"""Characters of scripts that put no spaces between words."""

_UNSPACED = re.compile(f"[{UNSPACED}]")
_LETTER = rf"[^\W{UNSPACED}]"
_WORD = re.compile(rf"[{UNSPACED}]|{_LETTER}+(?:['\u2019-]{_LETTER}+)*|[^\w\s]")


@dataclass(frozen=True)
class Tokens:
    """A prompt as its tokenizer cuts it."""

    prompt: str  # normal
    ids: tuple[int, ...]  # from the start token to the end token, without padding
    spans: tuple[tuple[int, int], ...]  # the characters of each; empty for the start and end tokens
    length: int  # L, the tokens that the text encoder reads, padding included


def normal(text: str) -> str:
    """Text in one line of whole characters, with accents composed (Unicode NFC) as tokenizers read them.

    Raises:
        UserError: Half a surrogate pair, which is no character.
    """
    return unicodedata.normalize("NFC", one_line(text))


def tokenize(tokenizer: Any, prompt: str) -> Tokens:
    """Cuts a prompt as the text encoder sees it, with a tokenizer that knows offsets, as those of transformers 5 do."""
    prompt, length = normal(prompt), tokenizer.model_max_length
    cut = tokenizer(prompt, truncation=True, max_length=length, return_offsets_mapping=True)
    return Tokens(prompt, tuple(cut.input_ids), tuple(tuple(span) for span in cut.offset_mapping), length)


def words(prompt: str, *, compat: bool = False) -> list[tuple[int, int]]:
    """The characters (start, end) of each word; with ``compat`` split at white space only, as the reference does.

    A punctuation mark is a word of its own, and so is a character of a script without spaces.
    """
    return [match.span() for match in re.finditer(r"\S+" if compat else _WORD, prompt)]


def tokens_within(tokens: Tokens, start: int, end: int) -> tuple[int, ...]:
    """The positions of the tokens that lie in the characters start to end; none for a word that was cut off."""
    return tuple(k for k, (a, b) in enumerate(tokens.spans) if a < end and b > start)


def find_word(tokens: Tokens, word: str) -> tuple[int, ...]:
    """The positions of all tokens of a word, or of a phrase such as ``red hat``, wherever it occurs in the prompt.

    A part of a longer word is not found, unless its script has no spaces that would part words.

    Raises:
        UserError: It does not occur, or lies beyond what the text encoder reads.
    """
    spans = _occurrences(tokens.prompt, normal(word))
    if not spans:
        raise UserError(f"there is no word {word!r} in {tokens.prompt!r}; take one of its words")
    found = tuple(dict.fromkeys(k for span in spans for k in tokens_within(tokens, *span)))
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


def _occurrences(prompt: str, word: str) -> list[tuple[int, int]]:
    pattern = r"\s+".join(re.escape(part) for part in word.split())
    matches = re.finditer(f"(?=({pattern}))", prompt, re.IGNORECASE) if pattern else ()
    return [
        m.span(1) for m in matches if not (_inside_word(prompt, m.start(1)) or _inside_word(prompt, m.end(1)))
    ]


def _inside_word(text: str, k: int) -> bool:
    """Whether characters k - 1 and k belong to one word of a script that puts spaces between words."""
    pair = text[max(k - 1, 0) : k + 1]
    return len(pair) == 2 and 0 < k and all(map(_is_letter, pair)) and not _UNSPACED.search(pair)


def _is_letter(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
