"""Classes by name: those of the package, and a stranger's by import path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar

from nulltext.errors import UserError

T = TypeVar("T")


def find_class(name: str, known: Mapping[str, type[T]], base: type[T], option: str) -> type[T]:
    """The class of a name in ``known``, or of an import path.

    Args:
        name: Such as ``null_text`` or ``my_package.my_module.MyMethod``.
        known: The package's own classes by name.
        base: What the class must derive from.
        option: Where the name was given, for the error.

    Raises:
        UserError: There is no such class, or it is of another kind.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    choices = ", ".join(known)
    if not module:
        raise UserError(
            f"{option} {name!r} is not one of {choices}; or give an import path: package.module.Class"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{option} {name} cannot be imported ({error}); give one of {choices}, or package.module.Class"
        ) from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(
            f"{option} {name} is no {base.__name__}; derive it from {base.__module__}.{base.__name__}"
        )
    return found
