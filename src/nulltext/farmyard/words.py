"""The farmyard's words: every caption that training uses, its tokenizer, and which words it knows."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nulltext.farmyard.scene import CAPTION_VARIANTS, Scene, caption

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_TOKENS = 24
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def captions(scenes: Sequence[Scene]) -> list[list[str]]:
    """All phrasings of all scenes, the full one first in each."""
    return [[caption(scene, variant) for variant in range(CAPTION_VARIANTS)] for scene in scenes]


def words_of(prompt: str) -> list[str]:
    """The lower-case words of a prompt, in order."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", prompt.lower())


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Every word of some texts once, in alphabetical order."""
    return sorted({word for text in texts for word in words_of(text)})


def train_tokenizer(texts: Iterable[str], merges: int = 400) -> "CLIPTokenizer":
    """A byte-pair tokenizer of CLIP's kind, trained on captions.

    It spells words it has never seen byte by byte, so that any prompt can be read.

    Args:
        texts: What to train on; the same texts in any order give the same tokenizer.
        merges: Most merges to learn; a small world needs far fewer before every word is one token.

    Returns:
        A tokenizer of prompts of up to `MAX_TOKENS` tokens; ids go alphabet, alphabet at a word's end, merges,
        begin, end, as in CLIP.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(base) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    pairs: Any = [tuple(pair) for pair in _merges(tokenizer)]  # transformers names the type list[str]
    order = dict.fromkeys([*base, *("".join(pair) for pair in pairs), BEGIN, END])
    vocab = {token: index for index, token in enumerate(order)}
    return CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=MAX_TOKENS)


def _merges(tokenizer: object) -> list[Sequence[str]]:
    """The merges of a trained tokenizer; its JSON is the one place that tells them."""
    import json

    model = json.loads(tokenizer.to_str())["model"]  # type: ignore[attr-defined]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
