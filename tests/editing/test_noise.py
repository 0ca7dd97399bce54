"""The noise that an edit starts from: what is coarse, what is detail, and what they cost."""

import dataclasses
import warnings

import pytest
import torch
from quick_inversion import SWAP, quick_inversion

from nulltext.editing import Edit, edit
from nulltext.editing.noise import calm_detail, coarse, other_noise
from nulltext.inversion import NullText
from nulltext.inversion.base import plain_noise
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.inversion.pivot import invert_to_noise
from nulltext.models.base import DiffusionModel


@pytest.fixture
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    inversion, _ = quick_inversion(model)
    return model, inversion


def edited(model, inversion, *edits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return edit(model, inversion, edits).results


def test_the_coarse_part_is_the_mean_of_a_neighbourhood_of_a_third_of_the_picture():
    point = torch.zeros(1, 1, 16, 20)
    point[..., 8, 10] = 25.0
    expected = torch.zeros(1, 1, 16, 20)
    expected[..., 6:11, 8:13] = 1.0
    torch.testing.assert_close(coarse(point), expected)
    assert torch.equal(coarse(torch.full((2, 4, 64, 64), 3.0)), torch.full((2, 4, 64, 64), 3.0))
    small = torch.randn(1, 4, 4, 6)
    assert torch.equal(coarse(small), small)  # too small to have any detail


def test_detail_is_the_plain_inversions_and_what_is_coarse_stays(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    noise, z_0 = torch.randn(2, 1, 4, 24, 20, generator=torch.Generator().manual_seed(0))
    cond = model.embed("a red barn")
    assert plain_noise(model, z_0, cond, 0) is None and model.forwards == 0
    assert torch.equal(calm_detail(noise, None), noise)
    plain = plain_noise(model, z_0, cond, 5)
    assert model.forwards == 5
    assert torch.equal(plain, invert_to_noise(model, model.schedule(5), z_0, cond)[0])
    calm = calm_detail(noise, plain)
    torch.testing.assert_close(calm - coarse(noise), plain - coarse(plain))
    torch.testing.assert_close(calm_detail(noise + 2, plain), calm + 2)  # colours are in the coarse part


def test_a_plain_inversion_in_few_steps_ends_in_fainter_noise():
    from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
    from nulltext.pixels import from_image

    model = DiffusionModel.from_pretrained()
    scene = random_scene(HELD_OUT_SEEDS.start)
    z_0 = model.encode(from_image(draw(scene, model.default_size))[None])
    cond = model.embed(caption(scene))
    schedule = model.schedule(10)
    plain = invert_to_noise(model, schedule, z_0, cond)[0]
    refined = invert_to_noise(model, schedule, z_0, cond, 4)[0]
    assert plain.std() < 0.85 * refined.std()


def test_detail_is_taken_from_a_plain_inversion_where_an_edit_says_so(sd):
    model, inversion = sd
    mask = torch.ones(32, 24)
    same = Edit(inversion.prompt, mask=mask, detail_steps=2)
    results = edited(model, inversion, Edit(SWAP, mask=mask), Edit(SWAP, mask=mask, detail_steps=2), same)
    assert [r.edit.detail_steps for r in results] == [0, 2, 2]
    assert not torch.allclose(results[0].latents, results[1].latents, atol=1e-3)


def test_all_edits_of_a_picture_share_the_plain_inversion(sd):
    model, inversion = sd
    plain = Edit(SWAP, kind="plain", local_blend=None)
    calm = Edit(SWAP, kind="plain", local_blend=None, detail_steps=6)

    def forwards(*edits):
        before = model.forwards
        edited(model, inversion, *edits)
        return model.forwards - before

    assert forwards(calm, calm, calm) == forwards(plain, plain, plain) + 6


def test_an_inversion_keeps_the_detail_that_its_edits_take_and_they_never_invert_again(tiny_sd, tmp_path):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    pixels = torch.rand(3, 32, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = NullText(steps=4, tolerance=1e9, pivot_tolerance=0.0, fixed_point_iterations=0)
    forwards, made = [], []
    for steps in (3, 0):
        before = model.forwards
        made.append(invert(model, pixels, "a red barn", dataclasses.replace(settings, detail_steps=steps)))
        forwards.append(model.forwards - before)
    assert forwards[0] == forwards[1] + 3 and [m.detail_steps for m in made] == [3, 0]
    cond = model.embed("a red barn", (32, 24))
    z_0 = model.encode(pixels[None])
    assert torch.equal(made[0].detail_noise[None], plain_noise(model, z_0, cond, 3))
    assert made[1].detail_noise is None

    made[0].save(tmp_path / "inversion.safetensors")
    read = Inversion.load(tmp_path / "inversion.safetensors")
    assert read.detail_steps == 3 and torch.equal(read.detail_noise, made[0].detail_noise)
    spent = []
    for inversion in (read, made[1]):
        before = model.forwards
        wanted = Edit("a blue barn", mask=torch.ones(32, 24), guidance_scale=3.0, detail_steps=3)
        edited(model, inversion, wanted)
        spent.append(model.forwards - before)
    assert spent[1] == spent[0] + 3  # it was not kept, and is made


def test_other_noise_is_reproducible_of_full_strength_and_only_inside_the_mask():
    noise, mask = torch.full((1, 4, 64, 64), 9.0), torch.zeros(64, 64)
    mask[:32] = 1.0
    once, again, another = (other_noise(noise, mask, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, another)
    assert torch.equal(once[..., 32:, :], noise[..., 32:, :])
    assert abs(once[..., :32, :].std() - 1) < 0.05 and abs(once[..., :32, :].mean()) < 0.05
    assert abs(other_noise(noise, None, 1).mean()) < 0.05
