"""The farmyard's tokenizer."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nulltext.farmyard.world.worlds import World

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_TOKENS = 32
"""Longest prompt in tokens, begin and end among them."""
WORLD_FOR_WORDS = 1000
"""Scenes whose captions train the tokenizer: enough for every word to come up."""
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def captions_of(world: World) -> set[str]:
    """The captions that train a world's tokenizer, and whose words are its vocabulary."""
    return {text for seed in range(WORLD_FOR_WORDS) for text in world.captions(world.random_scene(seed))}


def train_tokenizer(texts: Iterable[str], max_tokens: int, merges: int = 1000) -> "CLIPTokenizer":
    """A byte-pair tokenizer of CLIP's kind, trained on captions.

    It spells words it has never seen byte by byte, so that any prompt can be read.

    Args:
        texts: What to train on; the same texts in any order give the same tokenizer.
        max_tokens: Longest prompt, begin and end among its tokens.
        merges: Most merges to learn; a small world needs far fewer before every word is one token.

    Returns:
        The tokenizer; ids go alphabet, alphabet at a word's end, merges,
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
    return CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=max_tokens)


def _merges(tokenizer: object) -> list[Sequence[str]]:
    """The merges of a trained tokenizer; its JSON is the one place that tells them."""
    model = json.loads(tokenizer.to_str())["model"]  # type: ignore[attr-defined]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
