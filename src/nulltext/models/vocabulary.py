"""What a model does not read of a prompt: tokens beyond its length, and words beyond its vocabulary."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = "vocabulary.txt"
"""A file that may lie in a model's folder: every word that it was trained on, lower case, a line each."""


def words_of(prompt: str) -> list[str]:
    """The lower-case words of a prompt, in order."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", prompt.lower())


def known_words(folder: Path) -> frozenset[str] | None:
    """The words that the model of a folder was trained on; None where it does not say."""
    path = folder / VOCABULARY
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None


def unknown_words(prompt: str, known: frozenset[str]) -> list[str]:
    """The words of a prompt that the model has never seen, each once, in order."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in known]


class PromptNotes:
    """Warns of what a model does not read of its prompts: of each prompt and word once, the vocabulary once."""

    def __init__(self, name: str, tokenizer: Any, known: frozenset[str] | None) -> None:
        self.name, self.tokenizer, self.known = name, tokenizer, known
        self.length: int = tokenizer.model_max_length
        self.noted: set[str] = set()
        self.listed = False

    def warn(self, prompts: Sequence[str]) -> None:
        """Warns about some prompts.

        Warns:
            Where a prompt is longer than the text encoder reads, quoting what is cut, and where a prompt has words
            that are not in the model's vocabulary.
        """
        for prompt in prompts:
            ids = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
            if len(ids) > self.length and prompt not in self.noted:
                self.noted.add(prompt)
                cut = self.tokenizer.decode(ids[self.length - 1 : -1]).strip()
                said = f"the prompt is longer than {self.length} tokens; the model does not see: {cut!r}"
                warnings.warn(said, stacklevel=3)
        if self.known is None:
            return
        words = dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt, self.known))
        if unknown := [word for word in words if word not in self.noted]:
            self.noted.update(unknown)
            listed = "" if self.listed else f"; it knows: {', '.join(sorted(self.known))}"
            self.listed = True
            said = f"the {self.name} model does not know {', '.join(map(repr, unknown))}{listed}"
            warnings.warn(said, stacklevel=3)
