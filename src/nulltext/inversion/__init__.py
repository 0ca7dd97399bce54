"""Inversion: how a picture becomes noise and null embeddings, and the file that holds them."""

from nulltext.errors import UserError
from nulltext.imports import find_class
from nulltext.inversion.base import InversionMethod, Replay, State, StepRecord
from nulltext.inversion.file import Inversion
from nulltext.inversion.methods.ddim import DDIM, Direct
from nulltext.inversion.methods.edit_friendly import EditFriendly
from nulltext.inversion.methods.flow_edit import FlowEdit
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
    "method_for",
    "name_of",
]

# by the names that the command line and the files use
METHODS: dict[str, type[InversionMethod]] = {
    "null_text": NullText,
    "negative_prompt": NegativePrompt,
    "ddim": DDIM,
    "direct": Direct,
    "residual": Residual,
    "edit_friendly": EditFriendly,
    "flow_edit": FlowEdit,
}


def find_method(name: str) -> type[InversionMethod]:
    """The method of that name, or of that import path, such as ``my_package.MyMethod``."""
    return find_class(name, METHODS, InversionMethod, "--model.method")


def method_for(inversion: Inversion, name: str | None = None) -> InversionMethod:
    """A method that is to reproduce an inverted picture, by default its own, with the settings of its file.

    UserError where the file cannot serve it.
    """
    kind = find_method(name or inversion.method)
    drawn = inversion.residuals is not None
    if kind.draws != drawn or (drawn and kind is not find_method(inversion.method)):
        raise UserError(
            f"this inversion was made by {inversion.method} and cannot serve {name}; leave --method out, or make "
            f"another: python main.py fit --model.method {inversion.method if name is None else name}"
        )
    return kind.of(inversion)


def name_of(method: InversionMethod) -> str:
    """The name of a method as files hold it: the inverse of ``find_method``."""
    names = {known: name for name, known in METHODS.items()}
    return names.get(type(method), f"{type(method).__module__}.{type(method).__qualname__}")
