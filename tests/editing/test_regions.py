"""Where an edit may act: masks found by noise differences, by words, and painted ones."""

import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from quick_inversion import SWAP, quick_inversion

from nulltext.data.frame import Placement
from nulltext.editing import REGIONS, Edit, Region, edit
from nulltext.editing.regions.given import fit_mask, word_mask
from nulltext.editing.regions.noise_difference import (
    NoiseDifference,
    automatic_mask,
    otsu_threshold,
    probe_steps,
)
from nulltext.errors import UserError
from nulltext.models.base import DiffusionModel


@pytest.fixture(scope="module")
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    inversion, pixels = quick_inversion(model)
    return model, inversion, pixels


def test_otsu_parts_two_groups():
    values = torch.cat([torch.full((30,), 0.1), torch.full((10,), 0.9)])
    assert 0.1 < otsu_threshold(values) <= 0.9
    assert float((values > otsu_threshold(values)).sum()) == 10


def test_the_automatic_mask_finds_a_blob_with_soft_edges_and_nothing_in_nothing():
    difference = torch.full((16, 20), 0.02)
    difference[4:9, 5:12] = 0.5
    mask = automatic_mask(difference)
    assert mask[5:8, 6:11].min() == 1
    assert mask[12:].max() == 0 and mask[:, 16:].max() == 0
    assert bool(((mask > 0) & (mask < 1)).any())
    assert automatic_mask(torch.zeros(16, 20)).max() == 0
    small, large = automatic_mask(difference, max_pool=1), automatic_mask(difference, max_pool=5)
    assert small.sum() < mask.sum() < large.sum()


def test_the_word_mask_by_hand():
    attention = torch.zeros(4, 4)
    attention[1, 1] = 1.0
    attention[3, 3] = 0.2
    mask = word_mask([attention], (8, 8), threshold=0.3, max_pool=1)
    expected = torch.zeros(8, 8)
    expected[2:4, 2:4] = 1
    torch.testing.assert_close(mask, expected)
    assert word_mask([attention], (8, 8), 0.3, max_pool=3)[:6, :6].min() == 1
    both = word_mask([attention, attention.flip(0, 1)], (4, 4), 0.3, max_pool=1)
    assert both[1, 1] == 1 and both[2, 2] == 1 and both.sum() == 2


def test_a_given_mask_has_the_mean_of_its_pixels():
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1
    mask[2, 2] = 1
    torch.testing.assert_close(fit_mask(mask, (2, 2)), torch.tensor([[1.0, 0.0], [0.0, 0.25]]))


def test_probes_lie_between_the_noise_and_the_texture(sd):
    model, _, _ = sd
    schedule = model.schedule(50)
    steps = probe_steps(schedule)
    assert len(steps) == 6 and len(set(steps)) == 6
    assert all(400 <= schedule.t[i] <= 750 for i in steps)
    assert probe_steps(model.schedule(1)) == [0] * 6


def test_a_mask_painted_over_the_photo_goes_where_the_photo_went(sd, tmp_path):
    model, inversion, _ = sd
    place = Placement(original=(32, 64), orientation=1, box=(20.0, 0.0, 44.0, 32.0), size=(32, 24))
    cut = dataclasses.replace(inversion, placement=place.to_dict())
    photo = np.zeros((32, 64), dtype=np.uint8)
    photo[:, :32] = 255  # left of the piece, and its left half
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = edit(model, cut, Edit(SWAP, mask=tmp_path / "photo.png")).results
    assert result.mask[:, :6].min() == 1 and result.mask[:, 6:].max() == 0


class LeftHalf(Region):
    """A stranger's region."""

    def find(self, context):
        mask = torch.zeros(context.size)
        mask[:, : context.size[1] // 2] = 1.0
        return mask


class Looked(Region):
    """A stranger's region that follows the attention."""

    follows_attention = True

    def find(self, context):
        maps = context.maps("hat")
        if not maps:
            return None
        assert [m.shape for m in maps] == [(16, 12)]  # the target alone has the word
        return torch.ones(context.size)


def test_a_strangers_region_works_by_its_import_path(sd):
    model, inversion, pixels = sd
    edits = [Edit(SWAP, local_blend=f"{__name__}.LeftHalf"), Edit(SWAP, local_blend=f"{__name__}.Looked")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left, looked = edit(model, inversion, edits, original=pixels).results
    assert left.mask[:, :6].min() == 1 and left.mask[:, 6:].max() == 0
    assert torch.equal(left.picture[..., 14:], pixels[..., 14:])
    assert looked.mask.min() == 1
    with pytest.raises(UserError, match=r"local_blend nowhere\.Region cannot be imported"):
        edit(model, inversion, Edit(SWAP, local_blend="nowhere.Region"))


def test_the_union_of_regions_is_bounded_by_the_given_mask(sd):
    model, inversion, _ = sd
    upper = torch.zeros(32, 24)
    upper[:16] = 1.0
    wanted = Edit(SWAP, local_blend=f"{__name__}.LeftHalf,hat", mask=upper, threshold=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = edit(model, inversion, wanted).results
    assert result.mask[:8, :6].min() == 1 and result.mask[8:].max() == 0 and result.mask[:, 6:].max() == 0
    assert set(REGIONS) == {"auto", "words", "given"}


def test_the_weaker_of_two_changes_has_a_mask_of_its_own_and_what_hardly_differs_has_none():
    difference = torch.zeros(3, 24, 24)
    difference[0, 2:8, 2:8] = 1.0  # a new animal
    difference[1, 14:20, 2:8] = 0.2  # another background behind it
    difference[2, 2:8, 16:22] = 0.01  # a word's form
    context = SimpleNamespace(difference=lambda: difference, edit=Edit("a photo of a dog"))
    mask = NoiseDifference().find(context)
    assert mask[5, 5] == 1 and mask[17, 5] == 1 and mask[5, 19] == 0 and mask[17, 19] == 0
