"""The judge of edits: which changes a picture shows."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nulltext.editing import Edit, edit
from nulltext.editing.phrases import taken_back
from nulltext.editing.verdict import Judge, find_judge, said
from nulltext.errors import UserError
from nulltext.farmyard.world import caption, draw, random_scene
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models import DiffusionModel
from nulltext.pixels import from_image

ROOT = Path(__file__).parents[2]
SHEEP = "a white sheep on a green meadow next to a barn"


def test_each_change_is_taken_back_alone():
    target = "a white horse with a hat on a green meadow"
    assert taken_back(SHEEP, target) == {
        "sheep -> horse with a hat": "a white sheep on a green meadow",
        "- next to a barn": "a white horse with a hat on a green meadow next to a barn",
    }
    assert taken_back(SHEEP, SHEEP) == {}
    assert list(taken_back("a dog in the desert", "a dog on the beach")) == ["in the desert -> on the beach"]
    assert taken_back(SHEEP, SHEEP.replace("white", "black").replace("barn", "tree")) == {
        "white -> black": SHEEP.replace("barn", "tree"),
        "barn -> tree": SHEEP.replace("white", "black"),
    }


@pytest.fixture(scope="module")
def judge() -> Judge:
    found = find_judge(DiffusionModel.from_pretrained("farmyard"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "change", [{"animal": "horse"}, {"place": "snow"}, {"animal": "pig", "place": "beach"}]
)
def test_the_true_picture_shows_the_change_and_the_source_does_not(judge, change):
    """Over held-out scenes: nearly always, as the CLIP is no oracle."""
    right = []
    for seed in range(1_600_000, 1_600_012):
        before = replace(random_scene(seed), animal="sheep", place="meadow")
        after = replace(before, **change)
        texts = caption(before), caption(after)
        for scene, shown in ((before, False), (after, True)):
            margins = judge(from_image(draw(scene, 64)), *texts)
            assert len(margins) == len(change)
            right += [(margin > 0) == shown for margin in margins.values()]
    assert sum(right) >= 0.9 * len(right)


def test_a_verdict_in_one_line():
    assert said({"sheep -> horse": 0.1, "+ hat": -0.1}) == "seen: sheep -> horse; NOT seen: + hat"
    assert said({"a -> b": 0.1}) == "seen: a -> b"


def test_an_edit_says_what_is_seen_and_more_guidance_is_taken_for_what_is_not():
    """A swap is seen; a pair of changes that stands together is judged as one."""
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=10, fixed_point_iterations=1))
    source = inversion.prompt
    edits = [source.replace("sheep", "horse"), source.replace("white sheep", "black dog")]
    horse, dog = edit(model, inversion, edits).results
    assert horse.verdict["sheep -> horse"] > 0
    assert set(dog.verdict) == {"white sheep -> black dog"}
    (unjudged,) = edit(model, inversion, Edit(edits[0], judge="none")).results
    assert unjudged.verdict == {}


def test_of_the_guidance_scales_the_least_that_shows_most_is_taken(monkeypatch):
    """The judge sees one change of two at first, then both: nothing further is tried."""
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=6, fixed_point_iterations=1))
    verdicts = iter([{"a": -1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}])
    monkeypatch.setattr(
        sys.modules["nulltext.editing.edit"], "find_judge", lambda *_: lambda *_: next(verdicts)
    )
    with pytest.warns(UserWarning, match="does not show 'a' at guidance_scale 1.5: taken at 3"):
        (result,) = edit(model, inversion, inversion.prompt.replace("sheep", "horse")).results
    assert result.edit.guidance_scale == 3
    assert list(verdicts) == []


def test_what_no_guidance_shows_is_said_with_what_to_try(monkeypatch):
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=6, fixed_point_iterations=1))
    monkeypatch.setattr(
        sys.modules["nulltext.editing.edit"], "find_judge", lambda *_: lambda *_: {"a": -1.0, "b": 1.0}
    )
    with pytest.warns(
        UserWarning,
        match=r"does not show 'a': try .* \(guidance_scale was 1.5, 3 and 5, anywhere in the picture, seed 1\)",
    ):
        (result,) = edit(model, inversion, inversion.prompt.replace("sheep", "horse")).results
    assert result.edit.guidance_scale == 1.5


def test_a_barn_can_be_removed():
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=15, fixed_point_iterations=1))
    (result,) = edit(model, inversion, inversion.prompt.removesuffix(" next to a barn")).results
    assert result.verdict["- next to a barn"] > 0


def test_what_no_guidance_shows_other_noise_may(monkeypatch):
    """Where more guidance shows nothing, nor all of the picture, the edit starts from other noise inside its mask."""
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=6, fixed_point_iterations=1))
    verdicts = iter([*[{"a": -1.0}] * 4, {"a": 1.0}])
    monkeypatch.setattr(
        sys.modules["nulltext.editing.edit"], "find_judge", lambda *_: lambda *_: next(verdicts)
    )
    with pytest.warns(UserWarning, match="does not show 'a' at guidance_scale 1.5: taken at 3 with seed 1"):
        (result,) = edit(model, inversion, inversion.prompt.replace("sheep", "horse")).results
    assert (result.edit.seed, list(verdicts)) == (1, [])


def test_what_a_mask_hides_may_show_without_it(monkeypatch):
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=6, fixed_point_iterations=1))
    verdicts = iter([*[{"a": -1.0}] * 3, {"a": 1.0}])
    monkeypatch.setattr(
        sys.modules["nulltext.editing.edit"], "find_judge", lambda *_: lambda *_: next(verdicts)
    )
    with pytest.warns(UserWarning, match="guidance_scale 1.5: taken at 5, anywhere in the picture"):
        (result,) = edit(model, inversion, inversion.prompt.replace("sheep", "horse")).results
    assert bool((result.mask == 1).all()) and list(verdicts) == []


def test_with_a_judge_edits_start_gently_and_without_one_as_published():
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, ROOT / "sheep.jpg", method=NegativePrompt(steps=6, fixed_point_iterations=1))
    horse = inversion.prompt.replace("sheep", "horse")
    louder = Edit(horse, equalizer={"horse": 2.0})
    edits = [Edit(horse), louder, Edit(horse, judge="none"), Edit(horse, local_blend=None)]
    taken = [r.edit for r in edit(model, inversion, edits).results]
    assert [e.kind for e in taken] == ["plain", "replace", "replace", "replace"]
    assert [e.null for e in taken] == ["empty", "empty", "learned", "learned"]
    assert [e.guidance_scale for e in taken][2:] == [7.5, 7.5]
    assert taken[0].guidance_scale < 7.5


def test_no_judge_and_a_wrong_one(tiny_sd, tmp_path):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    assert find_judge(model) is None
    assert find_judge(model, "none") is None
    with pytest.raises(UserError, match="is no CLIP"):
        find_judge(model, str(tmp_path))
