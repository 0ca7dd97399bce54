"""The plain names of the page, as the options of ``edit``."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nulltext.app.dials import LAYOUT, MORE, PLAIN, STRENGTH, VARIANTS, WHERE, dials_of, options_of
from nulltext.cli.edit import REPEATED
from nulltext.cli.jobs import edits_of
from nulltext.cli.words import as_words, gather
from nulltext.editing import Edit

ALONE = {**PLAIN, "wanted": "a photo of a horse"}


def test_dials_left_alone_leave_everything_open() -> None:
    assert options_of(ALONE) == [{"prompt": "a photo of a horse"}]


def test_every_dial_is_an_option_of_an_edit() -> None:
    assert {field.name for field in dataclasses.fields(Edit)} >= set(MORE)


@pytest.mark.parametrize("strength", [value for _, value in STRENGTH])
@pytest.mark.parametrize("layout", [value for _, value in LAYOUT])
@pytest.mark.parametrize("where", [value for _, value in WHERE if value != "mask"])
def test_any_setting_of_the_dials_is_an_edit(strength: str, layout: str, where: str) -> None:
    for variants in ("One picture", "Three strengths", "Four layouts"):
        dials = {**ALONE, "strength": strength, "layout": layout, "where": where, "variants": variants}
        several = options_of({**dials, "blend_words": "horse"})
        assert len(several) == len(VARIANTS[variants])
        for options in several:
            (edit,), swept = edits_of(options)
            assert edit.prompt == "a photo of a horse" and not swept


def test_exact_numbers_under_more_dials_count_before_the_plain_ones() -> None:
    (options,) = options_of({**ALONE, "strength": "3", "guidance_scale": " 2.25 "})
    assert options["guidance_scale"] == "2.25"


def test_a_command_line_gives_the_dials_that_give_it_again() -> None:
    dials: dict[str, Any] = {
        **ALONE,
        "where": "words",
        "blend_words": "sheep,hat",
        "layout": "0.5",
        "seed": "3",
    }
    (options,) = options_of(dials)
    again, mask = dials_of(as_words({"inversion": "lightning_logs/version_0", **options}))
    assert (
        not mask
        and again["where"] == "words"
        and again["blend_words"] == "sheep,hat"
        and again["seed"] == "3"
    )
    assert options_of(again) == [options]


def test_a_prompt_that_begins_with_dashes_stays_a_prompt() -> None:
    words = as_words({"prompt": "--model a sheep", "local_blend": "none"})
    assert gather(words, *REPEATED)[-1] == '--prompt=["--model a sheep"]'
    dials, _ = dials_of(words)
    assert dials["wanted"] == "--model a sheep" and dials["where"] == "none"


def test_a_painted_mask_is_the_whole_mask() -> None:
    (options,) = options_of({**ALONE, "where": "mask"}, "mask.png")
    assert options == {"prompt": "a photo of a horse", "mask": "mask.png"}
    dials, mask = dials_of(as_words(options))
    assert dials["where"] == "mask" and mask == "mask.png"
