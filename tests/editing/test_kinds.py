"""Kinds of edits: those of the package, and a stranger's by its import path."""

import warnings

import pytest
import torch
from quick_inversion import SWAP, quick_inversion

from nulltext.editing import KINDS, Edit, Kind, edit
from nulltext.editing.kinds import find_kind, name_of
from nulltext.editing.kinds.controls import RowControl
from nulltext.editing.tokens import tokenize
from nulltext.errors import UserError
from nulltext.models.base import DiffusionModel

BOAT = "a red boat"  # as many letters, so as many tokens, as the source's barn


class Copy(Kind):
    """A stranger's kind: every token sees where the source's token of its place was seen, at every step."""

    def control(self, source, target, steps):
        ones = torch.ones(target.length)
        every = torch.ones(steps, target.length)
        return RowControl(torch.eye(target.length), ones, ones, every, torch.ones(steps, dtype=torch.bool))


@pytest.fixture(scope="module")
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    return model, quick_inversion(model)[0]


def pictures(sd, *edits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return edit(*sd, edits).results


def test_a_strangers_kind_works_by_its_import_path(sd):
    path = f"{__name__}.Copy"
    copy, windows, plain = pictures(
        sd,
        Edit(BOAT, kind=path, local_blend=None),
        Edit(BOAT, kind="replace", local_blend=None, cross_replace=1.0, self_replace=1.0),
        Edit(BOAT, kind="plain", local_blend=None),
    )
    assert copy.edit.kind == path and not torch.allclose(copy.latents, plain.latents, atol=1e-3)
    torch.testing.assert_close(copy.latents, windows.latents)
    assert name_of(find_kind(path)) == path and name_of(KINDS["refine"]) == "refine"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("swap", "kind 'swap' is not one of auto, plain, replace, refine, reweight; or give an import path"),
        ("nowhere.Kind", "kind nowhere.Kind cannot be imported"),
        ("pathlib.Path", "kind pathlib.Path is no Kind; derive it from nulltext.editing.kinds.base.Kind"),
    ],
)
def test_what_is_no_kind_is_refused_before_a_model_is_needed(kind, message):
    with pytest.raises(UserError, match=message):
        Edit(SWAP, kind=kind)


def test_auto_and_reweight_choose_by_the_prompts(sd):
    model, _ = sd
    cut = lambda prompt: tokenize(model.tokenizer, prompt)  # noqa: E731
    for kind in (KINDS["auto"](), KINDS["reweight"](equalizer={"hat": 2.0})):
        swapped = kind.chosen(cut("a red barn"), cut("a red hat"))
        longer = kind.chosen(cut("a red barn"), cut("a red barn hat"))
        assert [name_of(type(k)) for k in (swapped, longer)] == ["replace", "refine"]
        assert swapped.equalizer == kind.equalizer
        control = kind.control(cut("a red barn"), cut("a red hat"), 10)
        assert torch.equal(control.share, swapped.control(cut("a red barn"), cut("a red hat"), 10).share)
