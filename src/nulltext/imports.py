"""Imports: classes by name, those of the package and a stranger's by import path; and large libraries, faster."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from nulltext.errors import UserError

T = TypeVar("T")
one_command = False
"""Whether the process runs one command and ends, as on the command line; not so in a notebook or a test."""


def find_class(name: str, known: Mapping[str, type[T]], base: type[T], option: str) -> type[T]:
    """The class of a name in ``known``, or of an import path: ``null_text`` or ``my_package.my_module.MyMethod``.

    The class must derive from ``base``; ``option`` is where the name was given, for the error.

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


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps Python's garbage collector off while libraries are imported.

    They make about a million objects and hardly any garbage, and the collector would look at all of them several times.
    Where the process runs one command, it does not look at them later either.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if one_command:
            gc.freeze()
        if was_on:
            gc.enable()
