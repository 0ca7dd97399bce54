"""An edit that changes nothing is never silent, and the advice is what was not done yet."""

import warnings

import pytest
import torch
from quick_inversion import SOURCE, SWAP, quick_inversion

from nulltext.editing import Edit, edit, visibility
from nulltext.models.base import DiffusionModel


@pytest.fixture(scope="module")
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    return model, quick_inversion(model)[0]


def said(sd, wanted, monkeypatch, faint=2.0):
    """The warnings of an edit, where whatever it changes counts as nothing."""
    monkeypatch.setattr(visibility, "FAINT", faint)
    monkeypatch.setattr(visibility, "FAINT_ANYWHERE", faint)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        edit(*sd, wanted)
    return [str(w.message) for w in seen]


MASK = torch.ones(32, 24)
CASES = {
    "found mask": (Edit(SWAP), ["--mask FILE", "--local_blend none", "--seed 1"], ["--guidance_scale"]),
    "scale given": (Edit(SWAP, guidance_scale=2), ["--guidance_scale 3", "was 2)"], []),
    "largest scale given": (Edit(SWAP, guidance_scale=9), ["was 9)"], ["--guidance_scale"]),
    "mask given": (
        Edit(SWAP, mask=MASK),
        ["was 7.5)", "--seed 1"],
        ["--mask", "local_blend"],
    ),
    "mask and scale": (Edit(SWAP, mask=MASK, guidance_scale=3), ["--guidance_scale 5"], ["--mask"]),
    "bounded": (Edit(SWAP, mask=MASK, local_blend="hat"), ["--local_blend none"], ["--mask"]),
    "seed given": (Edit(SWAP, seed=4), ["another --seed"], ["--seed 1"]),
    "everywhere": (Edit(SWAP, local_blend=None), ["try other words"], ["--seed", "local_blend", "--mask"]),
    "windows": (Edit(SWAP, kind="replace"), ["--cross_replace 0 --self_replace 0"], []),
    "plain": (Edit(SWAP, kind="plain"), ["try other words"], ["--cross_replace"]),
    "weights": (
        Edit(SWAP, kind="reweight", equalizer={"hat": 1.5}),
        ["larger factors in --equalizer"],
        ["--cross_replace"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_changes_nothing_is_said_once_with_what_was_not_tried(sd, monkeypatch, name):
    wanted, tells, silent = CASES[name]
    (line,) = said(sd, wanted, monkeypatch)
    assert line.startswith(f"{SWAP!r} changes next to nothing: try other words")
    assert all(part in line for part in tells), line
    assert not any(part in line for part in silent), line


def test_what_changes_something_is_silent(sd, monkeypatch):
    for wanted in (Edit(SWAP, guidance_scale=2), Edit(SWAP, local_blend=None)):
        assert said(sd, wanted, monkeypatch, faint=0.0) == []


def test_an_empty_mask_is_said_once(sd, monkeypatch):
    corner = torch.zeros(32, 24)
    corner[:2, :2] = 1.0
    monkeypatch.setattr("nulltext.editing.regions.given.word_mask", lambda *_: torch.zeros(16, 12))
    (line,) = said(sd, Edit(SWAP, local_blend="hat", mask=corner), monkeypatch)
    assert line.startswith("'a red hat' has an empty mask, so nothing changes: try other words")
    monkeypatch.setattr("nulltext.editing.regions.noise_difference.NOTHING", 1e9)
    (line,) = said(sd, SWAP, monkeypatch)
    assert line.startswith("'a red hat' means the same picture to the model, so nothing changes: try other")


def test_the_sources_own_prompt_is_said_and_nothing_else(sd, monkeypatch):
    for wanted in (Edit(SOURCE), Edit(SOURCE, mask=MASK, guidance_scale=3), Edit(SOURCE, local_blend=None)):
        assert said(sd, wanted, monkeypatch) == [
            f"the prompt {SOURCE!r} is the source's own: this edit is the reconstruction"
        ]


def test_weights_in_a_prompt_are_met_with_the_equalizer_once(sd, monkeypatch):
    edits = [Edit("a red (hat:1.3)", guidance_scale=w) for w in (2.0, 3.0)]
    lines = [line for line in said(sd, edits, monkeypatch) if "equalizer" in line]
    assert len(lines) == 1 and "--equalizer 'hat:1.3'" in lines[0]


def test_a_generous_mask_around_a_visible_change_is_no_reason_to_complain(sd, monkeypatch):
    lines = said(sd, Edit(SWAP, mask=MASK, guidance_scale=20.0, keep_pixels=False), monkeypatch)
    assert len(lines) == 1
    monkeypatch.setattr(visibility, "WIDE", (2.0, 0.0))  # whatever moves is seen
    monkeypatch.setattr(visibility, "FAINT_ANYWHERE", 0.005)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(*sd, Edit(SWAP, mask=MASK, guidance_scale=20.0))
