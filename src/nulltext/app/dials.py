"""The dials of the page under plain names, as the options of ``edit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

CROPS = {"Middle square": "center", "Whole picture": "none"}
BOX = "A square of my own"
OPEN = "As suits the model"
PAINTED, WORDS = "Where I paint", "At these words"
WHERE = {"Where the prompts differ": "auto", WORDS: "", "Everywhere": "none", PAINTED: ""}
STRENGTH = {OPEN: "", "Gentle": "1.5", "Strong": "3", "Very strong": "7.5"}
LAYOUT = {OPEN: "", "None": "0", "Some": "0.2", "Half": "0.5", "Most": "0.8"}
VARIANTS: dict[str, list[dict[str, str]]] = {
    "One picture": [{}],
    "Four draws": [{"seed": str(seed)} for seed in range(1, 5)],
    "Three strengths": [{"guidance_scale": w} for w in ("1.5", "3", "7.5")],
    "Four layouts": [{"cross_replace": x, "self_replace": x} for x in ("0", "0.2", "0.5", "0.8")],
}
MORE = tuple(
    "kind equalizer guidance_scale cross_replace self_replace threshold max_pool start null seed keep_pixels".split()
)
"""The options of ``edit`` that are folded away, under their own names."""


def crop_of(dials: Any, size: tuple[int, int]) -> str:
    """The crop of a picture of (width, height) as ``--data.crop`` takes it; the dials are in percent."""
    if dials.crop != BOX:
        return CROPS[dials.crop]
    width, height = size
    side = max(16, round(min(size) * dials.side / 100))
    left, top = round((width - side) * dials.left / 100), round((height - side) * dials.top / 100)
    return f"{left},{top},{left + side},{top + side}"


def options_of(dials: Mapping[str, Any], mask: str = "") -> list[dict[str, str]]:
    """The options of each variant that the dials of the page mean; ``mask`` is the file of what was painted."""
    where, layout = dials["where"], LAYOUT[dials["layout"]]
    plain = {
        "mask": mask if where == PAINTED else "",
        "local_blend": dials["blend_words"].strip() if where == WORDS else WHERE[where],
        "guidance_scale": STRENGTH[dials["strength"]],
        "cross_replace": layout,
        "self_replace": layout,
    }
    exact = {name: value for name in MORE if (value := dials.get(name, "").strip())}
    given = {name: value for name, value in {**plain, **exact}.items() if value not in ("", "auto")}
    return [{"prompt": dials["wanted"].strip(), **given, **varied} for varied in VARIANTS[dials["variants"]]]


def as_words(options: Mapping[str, str]) -> list[str]:
    """Options as words of a command line; a value never begins with dashes."""
    pairs = options.items()
    return [*chain(*((f"--{k}={v}",) if v.startswith("-") else (f"--{k}", v) for k, v in pairs))]


def dials_of(words: Sequence[str]) -> tuple[dict[str, str], str]:
    """The dials that give the words of a command line again, exact ones under ``MORE``; and the mask's file."""
    parts = [*chain(*(word.split("=", 1) if word.startswith("--") else (word,) for word in words))]
    found = {name.removeprefix("--"): value for name, value in zip(parts[::2], parts[1::2], strict=True)}
    blend, mask = found.get("local_blend", "auto"), found.get("mask", "")
    places = {value: name for name, value in WHERE.items() if value}
    where = PAINTED if mask else places.get(blend, WORDS)
    plain = {"strength": OPEN, "layout": OPEN, "variants": next(iter(VARIANTS))}
    plain |= {"wanted": found["prompt"], "where": where, "blend_words": blend if where == WORDS else ""}
    return {**plain, **{name: found.get(name, "") for name in MORE}}, mask
