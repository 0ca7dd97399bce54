"""The dials of the page under plain names, as the options of ``edit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nulltext.cli.words import as_options

CROPS = [("Middle square", "center"), ("Whole picture", "none"), ("A square of my own", "box")]
WHERE = [("Where the prompts differ", "auto"), ("At these words", "words")]
WHERE += [("Everywhere", "none"), ("Where I paint", "mask")]
STRENGTH = [("As suits the model", "auto"), ("Gentle", "1.5"), ("Strong", "3"), ("Very strong", "7.5")]
LAYOUT = [("As suits the model", "auto"), ("None", "0"), ("Some", "0.2"), ("Half", "0.5"), ("Most", "0.8")]
VARIANTS: dict[str, list[dict[str, str]]] = {
    "One picture": [{}],
    "Four draws": [{"seed": str(seed)} for seed in range(1, 5)],
    "Three strengths": [{"guidance_scale": w} for w in ("1.5", "3", "7.5")],
    "Four layouts": [{"cross_replace": x, "self_replace": x} for x in ("0", "0.2", "0.5", "0.8")],
}
PLAIN = {"where": "auto", "blend_words": "", "strength": "auto", "layout": "auto", "variants": "One picture"}
"""The dials left alone."""
MORE = tuple(
    "kind equalizer guidance_scale cross_replace self_replace threshold max_pool start null seed keep_pixels".split()
)
"""The options of ``edit`` that are folded away, under their own names."""


def options_of(dials: Mapping[str, Any], mask: str = "") -> list[dict[str, str]]:
    """The options of each variant that the dials of the page mean; ``mask`` is the file of what was painted."""
    where, layout = dials["where"], dials["layout"]
    blend = {"words": dials["blend_words"].strip(), "mask": ""}.get(where, where)
    plain = {"mask": mask, "local_blend": blend, "guidance_scale": dials["strength"]}
    exact = {name: value for name in MORE if (value := dials.get(name, "").strip())}
    given = {**plain, "cross_replace": layout, "self_replace": layout, **exact}
    given = {name: value for name, value in given.items() if value not in ("", "auto")}
    return [{"prompt": dials["wanted"].strip(), **given, **varied} for varied in VARIANTS[dials["variants"]]]


def dials_of(words: Sequence[str]) -> tuple[dict[str, str], str]:
    """The dials that give the words of a command line again, exact ones under ``MORE``; and the mask's file."""
    found = as_options(words)
    blend, mask = found.get("local_blend", "auto"), found.get("mask", "")
    where = "mask" if mask else blend if blend in ("auto", "none") else "words"
    taken = {"wanted": found["prompt"], "where": where, "blend_words": blend if where == "words" else ""}
    return {**PLAIN, **taken, **{name: found.get(name, "") for name in MORE}}, mask
