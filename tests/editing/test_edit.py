"""Edits of an inverted picture: laws that hold for any model, on tiny random pipelines of each family."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from quick_inversion import LONGER, SOURCE, SWAP, quick_inversion

from nulltext.editing import Edit, edit, visibility
from nulltext.editing.compositing import changed_share
from nulltext.editing.tokens import tokenize
from nulltext.errors import UserError
from nulltext.inversion import find_method
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models.base import DiffusionModel

LEVEL = 2 / 255  # pixels span 2


@pytest.fixture(scope="module")
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    inversion, pixels = quick_inversion(model)
    return model, inversion, pixels


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return edit(*args, **kwargs)


def reconstruct(model, inversion):
    """The end of the source's trajectory (1, C, h, w) under its learned null embeddings."""
    return find_method("null_text")().replay(model, inversion).trajectory[-1]


def row_control(wanted, source, target, steps):
    return wanted.control_kind().control(source, target, steps)


def close(a, b, levels=1.0):
    return float((a - b).abs().max()) <= levels * LEVEL


KINDS = {
    "plain": Edit(SWAP, kind="plain"),
    "plain everywhere": Edit(SWAP, kind="plain", local_blend=None),
    "replace": Edit(SWAP, kind="replace", local_blend=None),
    "refine": Edit(LONGER, kind="refine", local_blend=None),
    "reweight": Edit(SWAP, kind="reweight", equalizer={"hat": 3.0}, local_blend=None),
    "auto": Edit(SWAP),
    "words": Edit(SWAP, local_blend="barn,hat", start=0.2),
    "words and auto": Edit(SWAP, local_blend=["auto", "hat"]),
    "empty null everywhere": Edit(SWAP, null="empty", local_blend=None),
    "seed": Edit(SWAP, seed=3),
}


def test_each_kind_goes_through_each_family_non_square(tiny):
    model = DiffusionModel.from_pretrained(str(tiny))
    inversion, _ = quick_inversion(model)
    edited = quietly(model, inversion, list(KINDS.values()), attention=["red"])
    assert close(edited.reconstruction, model.decode(reconstruct(model, inversion))[0])
    for name, result in zip(KINDS, edited.results, strict=True):
        assert result.picture.shape == (3, 32, 24), name
        assert bool(result.picture.isfinite().all()), name
        assert result.attention["red"].shape == (16, 12), name
        assert (result.mask is None) == (result.edit.local_blend is None), name


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_target_equals_source_gives_the_reconstruction_for_every_kind(tiny_sd, start):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    inversion, _ = quick_inversion(model, start=start)
    same = [
        replace(
            e,
            prompt=SOURCE,
            equalizer={},
            kind="auto" if e.kind == "reweight" else e.kind,
            local_blend="barn" if e.local_blend == "barn,hat" else e.local_blend,
        )
        for e in KINDS.values()
        if e.null == "auto" and e.seed is None and e.local_blend != ["auto", "hat"]
    ]
    same.append(Edit(SOURCE, mask=torch.ones(32, 24)))
    with pytest.warns(UserWarning, match="this edit is the reconstruction"):
        edited = edit(model, inversion, same)
    expected = model.decode(reconstruct(model, inversion))[0]
    for result in edited.results:
        assert close(result.picture, expected), result.edit


def test_the_picture_itself_stays_outside_the_mask(sd):
    model, inversion, pixels = sd
    mask = torch.zeros(32, 24)
    mask[:16] = 1.0
    edits = [Edit(SWAP, mask=mask), Edit(SWAP, mask=mask, keep_pixels=False)]
    kept, decoded = quietly(model, inversion, edits, original=pixels).results
    assert torch.equal(kept.picture[:, 20:], pixels[:, 20:])
    assert not torch.allclose(decoded.picture[:, 20:], pixels[:, 20:], atol=0.05)
    torch.testing.assert_close(kept.latents, decoded.latents, rtol=0, atol=1e-4)


def test_half_precision_edits_and_keeps_the_source(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd), precision="bf16-mixed")
    inversion, _ = quick_inversion(model)
    same = Edit(SOURCE, kind="plain", local_blend=None)
    edits = [same, replace(same, kind="auto"), Edit(SWAP), Edit(SWAP, local_blend="hat")]
    edited = quietly(model, inversion, edits)
    for result in edited.results[:2]:  # rows of another batch, and probabilities, round differently in bf16
        assert (result.picture - edited.reconstruction).square().mean() / 4 < 1e-3
    assert all(bool(r.picture.isfinite().all()) for r in edited.results)


@pytest.mark.parametrize("method", ["null_text", "ddim", "negative_prompt", "direct"])
def test_each_method_keeps_its_own_source_when_nothing_changes(sd, method):
    model, inversion, pixels = sd
    edited = quietly(model, inversion, [SOURCE, SWAP], method=method, original=pixels)
    assert close(edited.results[0].picture, edited.reconstruction)
    if method == "direct":  # the pivot ends at the picture itself, as the VAE shows it
        assert close(edited.reconstruction, model.decode(model.encode(pixels[None]))[0])


def test_methods_differ(sd):
    model, inversion, _ = sd
    target = Edit(SWAP, kind="plain", local_blend=None)
    outcomes = [quietly(model, inversion, target, method=m).results[0].picture
                for m in ("null_text", "ddim", "negative_prompt", "direct")]  # fmt: skip
    assert not close(outcomes[0], outcomes[1])
    assert not close(outcomes[1], outcomes[2])


def test_several_edits_in_one_batch_equal_each_alone(sd):
    model, inversion, _ = sd
    edits = [KINDS[k] for k in ("plain everywhere", "replace", "refine", "words", "auto")]
    together = quietly(model, inversion, edits).results
    for one, result in zip(edits, together, strict=True):
        assert close(quietly(model, inversion, one).results[0].picture, result.picture, 0.1), one
    split = quietly(model, inversion, edits, batch_size=2).results
    for a, b in zip(split, together, strict=True):
        assert close(a.picture, b.picture, 0.1)


def test_the_source_is_computed_once_for_all_edits(sd):
    model, inversion, _ = sd
    backwards = model.backwards  # the inversion's own
    before = model.forwards
    quietly(model, inversion, [Edit(SWAP, kind="plain", local_blend=None)] * 3)
    assert model.forwards - before == 4 * 2 + 4 * 2 * 3  # T steps: source guided once, three edits guided
    before = model.forwards
    quietly(model, inversion, [Edit(SWAP, kind="replace", local_blend=None)] * 3)
    assert model.forwards - before == 4 * 2 + 4 * (2 * 3 + 1)  # and one source row to look at
    assert model.backwards == backwards


def test_windows_at_zero_are_no_control(sd):
    model, inversion, _ = sd
    off = Edit(SWAP, kind="replace", cross_replace=0.0, self_replace=0.0, local_blend=None)
    plain = Edit(SWAP, kind="plain", local_blend=None)
    a, b = quietly(model, inversion, [off, plain]).results
    assert torch.equal(a.picture, b.picture)


def test_windows_open_and_close_where_they_say(sd):
    model, _, _ = sd
    source, target = (tokenize(model.tokenizer, p) for p in (SOURCE, SWAP))
    share = lambda w: row_control(Edit(SWAP, cross_replace=w), source, target, 10).share[:, 1].tolist()  # noqa: E731
    assert share(1.0) == [1] * 10
    assert share(0.0) == [0] * 10
    assert share(0.3) == [1] * 3 + [0] * 7
    assert share((0.2, 0.5)) == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    control = row_control(Edit(SWAP, cross_replace={"default": 1.0, "hat": 0.5}), source, target, 10)
    hat = [5, 6, 7]  # start, a, r, e, d, h, a, t
    assert control.share[:, hat].tolist() == [[1] * 3] * 5 + [[0] * 3] * 5
    assert control.share[:, 4].tolist() == [1] * 10
    assert (
        row_control(Edit(SWAP, self_replace=0.4), source, target, 10).self_steps.tolist()
        == [True] * 4 + [False] * 6
    )


def test_auto_takes_replace_for_swaps_and_refine_otherwise(sd):
    model, inversion, _ = sd
    results = quietly(
        model, inversion, [SWAP, LONGER, Edit(SWAP, kind="reweight", equalizer={"hat": 2})]
    ).results
    assert [r.edit.kind for r in results] == ["replace", "refine", "replace"]


def test_reweighting_the_sources_own_prompt_changes_the_picture(sd):
    model, inversion, _ = sd
    louder = Edit(SOURCE, kind="reweight", equalizer={"barn": 20.0}, cross_replace=1.0)
    edited = quietly(model, inversion, [louder, replace(louder, local_blend=None)])
    assert edited.results[0].mask.max() > 0
    assert not close(edited.results[1].picture, edited.reconstruction)


def test_outside_the_mask_the_picture_stays(sd):
    model, inversion, _ = sd
    mask = torch.zeros(32, 24)
    mask[:16] = 1
    edited = quietly(model, inversion, Edit(SWAP, mask=mask, guidance_scale=7.5))
    result = edited.results[0]
    assert result.mask[:8].min() == 1 and result.mask[8:].max() == 0
    change = (result.latents - reconstruct(model, inversion)[0]).abs().mean((0, 2))  # of each row
    assert change[:8].min() > 0.01 and change[8:].max() < 1e-4


def test_a_seed_is_reproducible_and_gives_another_edit(sd):
    model, inversion, _ = sd
    a, b, c = quietly(model, inversion, [Edit(SWAP, seed=1), Edit(SWAP, seed=1), Edit(SWAP, seed=2)]).results
    assert close(a.picture, b.picture, 0.1)
    assert not close(a.picture, c.picture)


def test_user_errors_say_what_to_type(sd, tmp_path):
    model, inversion, _ = sd
    cases = {
        r"'a red barn' has 3 words, 'a hat' 2\. Use kind: refine": dict(prompt="a hat", kind="replace"),
        "no word 'cow' in 'a red hat'": dict(prompt=SWAP, local_blend="cow"),
        "no word 'sheep' in 'a red hat'": dict(prompt=SWAP, equalizer={"sheep": 2.0}),
        "no word 'dog' in 'a red hat'": dict(prompt=SWAP, cross_replace={"dog": 0.5}),
        "cross_replace is a share of the steps": dict(prompt=SWAP, cross_replace=1.5),
        "self_replace is a share": dict(prompt=SWAP, self_replace=-0.1),
        "threshold is a share": dict(prompt=SWAP, threshold=2.0),
        "max_pool must be odd": dict(prompt=SWAP, max_pool=2),
        "kind 'swap' is not one of auto, plain": dict(prompt=SWAP, kind="swap"),
        "use kind: reweight": dict(prompt=SWAP, kind="plain", equalizer={"hat": 2}),
        "--equalizer hat": dict(prompt=SWAP, kind="reweight"),
        "guidance_scale must be 0 or more": dict(prompt=SWAP, guidance_scale=float("nan")),
        "seed draws other noise inside a mask": dict(prompt=SWAP, seed=1, local_blend=None),
        "no such file": dict(prompt=SWAP, mask=tmp_path / "none.png"),
        "black all over": dict(prompt=SWAP, mask=torch.zeros(32, 24)),
    }
    for message, options in cases.items():
        with pytest.raises(UserError, match=message):
            edit(model, inversion, Edit(**options))
    with pytest.raises(UserError, match="no word 'cow'"):
        edit(model, inversion, SWAP, attention=["cow"])
    with pytest.raises(UserError, match="no edit to make"):
        edit(model, inversion, [])
    with pytest.raises(UserError, match="method 'magic' is not one of null_text"):
        edit(model, inversion, SWAP, method="magic")
    with pytest.raises(UserError, match="no option 'knid'"):
        Edit.from_mapping({"prompt": SWAP, "knid": "plain"})


def test_another_models_inversion_is_refused(sd, tiny_sdxl):
    _, inversion, _ = sd
    other = DiffusionModel.from_pretrained(str(tiny_sdxl))
    with pytest.raises(UserError, match="was made with"):
        edit(other, inversion, SWAP)


def test_a_mask_painted_at_another_scale_fits_and_one_of_another_shape_is_refused(sd, tmp_path):
    model, inversion, _ = sd
    Image.new("L", (48, 64), 255).save(tmp_path / "mask.png")
    result = quietly(model, inversion, Edit(SWAP, mask=tmp_path / "mask.png")).results[0]
    assert result.mask.shape == (16, 12) and result.mask.min() == 1
    Image.new("L", (64, 64), 255).save(tmp_path / "square.png")
    with pytest.raises(UserError, match=r"square\.png: is 64 x 64, the picture 24 x 32"):
        edit(model, inversion, Edit(SWAP, mask=tmp_path / "square.png"))


def test_an_inversion_read_from_its_file_edits_the_same(sd, tmp_path):
    model, inversion, _ = sd
    inversion.save(tmp_path / "inversion.safetensors")
    read = Inversion.load(tmp_path / "inversion.safetensors")
    a = quietly(model, inversion, SWAP).results[0].picture
    assert torch.equal(quietly(model, read, SWAP).results[0].picture, a)


def test_an_edit_that_shows_nothing_is_guided_more_and_that_is_said():
    model = DiffusionModel.from_pretrained()
    refined = NegativePrompt(steps=15, fixed_point_iterations=1)
    inversion = invert(model, Path(__file__).parents[2] / "sheep.jpg", method=refined)
    faint = "a photo of a white sheep wearing a hat on a green meadow next to a barn"
    strong = "a photo of a black sheep on a green meadow next to a barn"
    with pytest.warns(UserWarning, match="wearing a hat .* changes next to nothing at .*1.5: taken at 5"):
        results = edit(model, inversion, [faint, strong]).results
    assert [r.edit.guidance_scale for r in results] == [5, 1.5]
    with pytest.warns(UserWarning, match="changes next to nothing: try other words, --guidance_scale 3,"):
        (given,) = edit(model, inversion, Edit(faint, guidance_scale=1.35)).results
    assert given.edit.guidance_scale == 1.35


def test_an_edit_that_shows_nothing_at_any_scale_is_left_as_it_was(sd, monkeypatch):
    model, inversion, _ = sd
    wanted = Edit(SWAP, mask=torch.ones(32, 24))
    monkeypatch.setattr(visibility, "FAINT", 0.0)
    (expected,) = edit(model, inversion, wanted).results
    for bound in ("FAINT", "FAINT_ANYWHERE"):
        monkeypatch.setattr(visibility, bound, 2.0)
    with pytest.warns(UserWarning, match="changes next to nothing: try other words"):
        (left,) = edit(model, inversion, wanted).results
    assert torch.equal(left.picture, expected.picture) and left.edit == expected.edit


def test_the_default_inversion_lets_the_whole_background_go():
    """A plain pivot's noise keeps the coarse colours of the picture, and no edit could leave them."""
    model = DiffusionModel.from_pretrained("farmyard")
    inversion = invert(model, Path(__file__).parents[2] / "sheep.jpg")
    assert 0.85 < inversion.noise.std() < 1.1
    edited = edit(model, inversion, "a photo of a white sheep on a sandy beach next to a barn")
    (result,) = edited.results
    assert changed_share(result.picture, edited.reconstruction.cpu(), result.mask) > 0.2
