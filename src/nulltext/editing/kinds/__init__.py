"""Kinds of edits, one file each; all of them are listed in ``KINDS``."""

from nulltext.editing.kinds.auto import Auto
from nulltext.editing.kinds.base import WINDOW, Kind, Window
from nulltext.editing.kinds.plain import Plain
from nulltext.editing.kinds.refine import Refine
from nulltext.editing.kinds.replace import Replace
from nulltext.editing.kinds.reweight import Reweight
from nulltext.imports import find_class

KINDS: dict[str, type[Kind]] = {
    "auto": Auto,
    "plain": Plain,
    "replace": Replace,
    "refine": Refine,
    "reweight": Reweight,
}


def find_kind(name: str) -> type[Kind]:
    """A kind by its name, or a stranger's by its import path.

    Raises:
        UserError: There is no such kind.
    """
    return find_class(name, KINDS, Kind, "kind")  # type: ignore[type-abstract]


def name_of(kind: type[Kind]) -> str:
    """The name of a kind in ``KINDS``, or its import path."""
    names = {known: name for name, known in KINDS.items()}
    return names.get(kind, f"{kind.__module__}.{kind.__qualname__}")


__all__ = ["KINDS", "WINDOW", "Kind", "Window", "find_kind", "name_of"]
