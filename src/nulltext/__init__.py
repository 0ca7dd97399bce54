"""Null-text inversion of photographs (Mokady et al., CVPR 2023) for editing with words."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DiffusionModel", "Edit", "Inversion", "NullText", "__version__", "edit", "evaluate", "invert"]

if TYPE_CHECKING:
    from nulltext.editing import Edit, edit
    from nulltext.evaluation import evaluate
    from nulltext.inversion import NullText
    from nulltext.inversion.file import Inversion
    from nulltext.inversion.invert import invert
    from nulltext.models import DiffusionModel

_HOMES = {
    "DiffusionModel": "nulltext.models",
    "Edit": "nulltext.editing",
    "Inversion": "nulltext.inversion.file",
    "NullText": "nulltext.inversion",
    "edit": "nulltext.editing",
    "evaluate": "nulltext.evaluation",
    "invert": "nulltext.inversion.invert",
}


def __getattr__(name: str) -> Any:
    """Imports a name's room when the name is first used: ``main.py --help`` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nulltext' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
