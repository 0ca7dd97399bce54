"""Text that can be drawn: every character from a font that has it, or in plain words. No character becomes a box."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Any

BASE = "DejaVu Sans"  # travels with matplotlib: Latin with its accents, Greek, Cyrillic, dashes, arrows
_SYMBOL_FONTS = ("STIX", "cm", "Last Resort")  # of matplotlib, for formulas


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    """The file of a regular face of each installed family."""
    from matplotlib.font_manager import fontManager

    faces = [f for f in fontManager.ttflist if not f.name.startswith(_SYMBOL_FONTS)]
    faces.sort(key=lambda f: (f.style != "normal", f.weight not in (400, "normal", "regular"), f.name))
    found: dict[str, str] = {}
    for face in faces:
        found.setdefault(face.name, face.fname)
    return {BASE: found[BASE], **found}


@lru_cache(maxsize=4096)
def family_of(character: str) -> str | None:
    """The family of an installed font that can draw a character; None where there is none."""
    from matplotlib.font_manager import get_font

    for family, path in _installed().items():
        try:
            font = get_font(path)
            if font.get_char_index(ord(character)):
                font.load_char(ord(character))
                return family
        except (OSError, RuntimeError, ValueError):  # a face of bitmaps, such as coloured emoji
            continue
    return None


@lru_cache(maxsize=1024)
def drawable(text: str) -> str:
    """The text in one line, with characters that no installed font has in plain words.

    An accent falls back to its letter, a symbol to its Unicode name such as [sheep], letters of another script to
    their number, such as [3 CJK letters].
    """
    written = ""
    for other, run in groupby(" ".join(text.split()), key=_replacement):
        letters = "".join(run)
        if other is None:
            written += letters
        elif other.isupper():
            written += f"[{len(letters)} {other} letter{'s' * (len(letters) > 1)}]"
        else:
            written += other * len(letters)
    return written


def _replacement(character: str) -> str | None:
    """None: drawn as it is; a script in capitals; or the text to draw in its place."""
    kind = unicodedata.category(character)
    name = unicodedata.name(character, "unknown")
    if kind in ("Cf", "Cc", "Cs") or name.startswith("VARIATION SELECTOR"):
        return ""
    if family_of(character):
        return None
    plain = unicodedata.normalize("NFKD", character)
    if plain != character and all(map(family_of, plain)):
        return plain
    if kind in ("Mn", "Me", "Sk"):  # such as skin tones: nothing is lost without them
        return ""
    return f"[{name.lower()}]" if kind.startswith("S") else name.split()[0].upper()


def font(text: str, size: float) -> Any:
    """Font properties for a drawable text, ``size`` in points."""
    from matplotlib.font_manager import FontProperties

    needed = dict.fromkeys([BASE, *filter(None, map(family_of, text))])
    return FontProperties(family=list(needed), size=size)
