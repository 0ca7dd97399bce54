"""Inversion: how a picture becomes noise and null embeddings, and the file that holds them."""

from nulltext.imports import find_class
from nulltext.inversion.base import InversionMethod, Replay, State, StepRecord
from nulltext.inversion.methods.ddim import DDIM, Direct
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.inversion.methods.null_text import NullText
from nulltext.inversion.methods.residual import Residual

__all__ = [
    "METHODS",
    "InversionMethod",
    "NullText",
    "Replay",
    "State",
    "StepRecord",
    "find_method",
    "name_of",
]

# by the names that the command line and the files use
METHODS: dict[str, type[InversionMethod]] = {
    "null_text": NullText,
    "negative_prompt": NegativePrompt,
    "ddim": DDIM,
    "direct": Direct,
    "residual": Residual,
}


def find_method(name: str) -> type[InversionMethod]:
    """The method of that name, or of that import path, such as ``my_package.MyMethod``."""
    return find_class(name, METHODS, InversionMethod, "--model.method")


def name_of(method: InversionMethod) -> str:
    """The name of a method as files hold it: the inverse of ``find_method``."""
    names = {known: name for name, known in METHODS.items()}
    return names.get(type(method), f"{type(method).__module__}.{type(method).__qualname__}")
