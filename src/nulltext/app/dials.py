"""The dials of the page under plain names, as the options of ``edit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
MORE = (
    "kind",
    "equalizer",
    "guidance_scale",
    "cross_replace",
    "self_replace",
    "threshold",
    "max_pool",
    "start",
    "null",
    "detail_steps",
    "seed",
    "keep_pixels",
)
"""The options of ``edit`` that are folded away, under their own names."""


def options_of(dials: Mapping[str, Any], mask: str = "") -> list[dict[str, str]]:
    """The options of each variant that the dials mean.

    Args:
        dials: ``prompt``, ``where``, ``blend_words``, ``strength``, ``layout``, ``variants``, and those of ``MORE``.
        mask: The file of the painted mask.
    """
    layout = LAYOUT[dials["layout"]]
    where = {"mask": mask} if dials["where"] == PAINTED else {"local_blend": WHERE[dials["where"]]}
    if dials["where"] == WORDS:
        where = {"local_blend": dials["blend_words"].strip()}
    plain = {
        **where,
        "guidance_scale": STRENGTH[dials["strength"]],
        "cross_replace": layout,
        "self_replace": layout,
    }
    exact = {name: (dials.get(name) or "").strip() for name in MORE if (dials.get(name) or "").strip()}
    given = {name: value for name, value in {**plain, **exact}.items() if value not in ("", "auto")}
    return [
        {"prompt": dials["prompt"].strip(), **given, **variant} for variant in VARIANTS[dials["variants"]]
    ]


def as_words(options: Mapping[str, str]) -> list[str]:
    """Options as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return words


def dials_of(words: Sequence[str]) -> dict[str, str]:
    """The dials that give the words of a command line again, exact ones under ``MORE``."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).removeprefix("--").partition("=")
        found[name] = value if equals else rest.pop(0) if rest else ""
    blend = found.get("local_blend", "auto")
    places = {value: name for name, value in WHERE.items() if value}
    where = PAINTED if "mask" in found else places.get(blend, WORDS)
    taken = {"prompt": found.get("prompt", ""), "where": where, "strength": OPEN, "layout": OPEN}
    taken |= {"variants": next(iter(VARIANTS)), "blend_words": blend if where == WORDS else ""}
    return {**taken, **{name: found.get(name, "") for name in MORE}, "mask": found.get("mask", "")}
