"""Null-text inversion of photographs (Mokady et al., CVPR 2023) for editing with words."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Backbone", "__version__", "edit", "invert"]

if TYPE_CHECKING:
    from nulltext.backbone import Backbone
    from nulltext.editing import edit
    from nulltext.inversion import invert

_HOMES = {"Backbone": "nulltext.backbone", "invert": "nulltext.inversion", "edit": "nulltext.editing"}


def __getattr__(name: str) -> Any:
    """Imports torch only when one of the three is asked for: ``main.py --help`` needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nulltext' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
