"""The shipped weights: where they are, whether they are whole, and which words they know."""

import json
from hashlib import sha256
from pathlib import Path

from nulltext.errors import UserError
from nulltext.farmyard.world.captions import words_of

PRETRAINED = Path(__file__).parent / "pretrained"
"""The diffusers folder that `--model.pretrained farmyard` means; `clip` in it is the evaluator, a CLIPModel folder."""

MAKE_AGAIN = "python -m nulltext.farmyard train"
VOCABULARY = "vocabulary.txt"
CHECKSUMS = "sha256.json"


def check_weights(folder: Path = PRETRAINED) -> None:
    """See whether a farmyard folder is whole: every file that its checksums name is there and unchanged.

    Raises:
        UserError: A file is missing or damaged; says which and how to make the weights again.
    """
    try:
        expected = dict(json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"the farmyard's weights in {folder} are missing; make them again: {MAKE_AGAIN}"
        ) from None
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"the farmyard's weights lack {path}; make them again: {MAKE_AGAIN}")
        if sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"the farmyard's weights are damaged: {path}; make them again: {MAKE_AGAIN}")


def known_words(folder: Path = PRETRAINED) -> frozenset[str]:
    """The words that the model was trained on: a line each in its `vocabulary.txt`, lower case."""
    return frozenset((folder / VOCABULARY).read_text(encoding="utf-8").split())


def unknown_words(prompt: str, known: frozenset[str]) -> list[str]:
    """The words of a prompt that the model has never seen, each once, in order."""
    return [word for word in dict.fromkeys(words_of(prompt)) if word not in known]
