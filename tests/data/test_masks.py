"""Masks go through everything that their picture went through."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import exif, gradient, read, saved
from PIL import Image

from nulltext.data.frame import Frame, Placement
from nulltext.data.masks import read_mask
from nulltext.errors import UserError
from nulltext.pixels import to_unit

CASES = Path(__file__).parent / "cases"
CROPS = ["center", "none", "128,0,384,256", "256,0,512,256"]


def painted(width, height, box, white=255, mode="L"):
    mask = Image.new(mode, (width, height), 0)
    mask.paste(white, box)
    return mask


@pytest.mark.parametrize("crop", CROPS)
def test_a_mask_over_the_whole_photo_covers_the_sheep_whatever_the_crop(crop):
    placement = read(CASES / "wide.jpg", crop=crop).placement
    mask = read_mask(CASES / "mask.png", placement, placement.size)
    cut_like_a_picture = to_unit(read(CASES / "mask.png", crop=crop).pixels)[0]
    assert mask.shape == placement.size and (mask - cut_like_a_picture).abs().mean() < 0.01
    if crop != "256,0,512,256":  # the sheep is gray and white, what surrounds it is not
        photo = to_unit(read(CASES / "wide.jpg", crop=crop).pixels)
        colour = photo.amax(0) - photo.amin(0)
        assert colour[mask > 0.9].mean() < colour[mask < 0.1].mean() - 0.1


@pytest.mark.parametrize("scale", [0.25, 0.5, 2])
def test_a_smaller_or_larger_copy_of_the_photo_is_cut_alike(scale):
    placement = Frame("64,32,320,224", (48, 64), 8).place(512, 256)
    whole = painted(512, 256, (128, 64, 256, 192))
    copy = whole.resize((int(512 * scale), int(256 * scale)), Image.Resampling.NEAREST)
    masks = [read_mask(png(mask), placement, placement.size) for mask in (whole, copy)]
    expected = torch.zeros(48, 64)
    expected[8:40, 16:48] = 1  # (128 - 64) / 4 = 16 from the left; (64 - 32) / 4 = 8 from the top
    assert torch.equal(masks[0], expected)
    assert (masks[1] - expected).abs().mean() < 0.02


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_mask_is_turned_with_its_photo(turn, tmp_path):
    box = (8, 4, 40, 20)
    photo = saved(gradient(64, 32), tmp_path / "photo.png", exif=exif(orientation=turn))
    placement = read(photo, crop="none", size=32).placement
    turned = saved(painted(64, 32, box), tmp_path / "turned.png", exif=exif(orientation=turn))
    mask = read_mask(turned, placement, placement.size)
    assert mask.shape == placement.size
    light = to_unit(read(turned, crop="none", size=32).pixels)[0]
    assert (mask - light).abs().mean() < 0.02
    if turn >= 5:  # painted over the pixels as the camera stored them, by a program that ignores EXIF
        plain = saved(painted(64, 32, box), tmp_path / "plain.png")
        assert torch.equal(read_mask(plain, placement, placement.size), mask)


def test_a_mask_over_what_the_model_sees_is_taken_as_it_is():
    placement = Frame("128,0,384,256", 64, 8).place(512, 256)
    mask = painted(64, 64, (0, 0, 32, 64))
    assert torch.equal(
        read_mask(png(mask), placement, (64, 64)), torch.from_numpy(np.asarray(mask) / 255).float()
    )
    large = painted(256, 256, (0, 0, 128, 256))
    assert torch.equal(read_mask(png(large), None, (64, 64)), read_mask(png(mask), None, (64, 64)))


def test_a_mask_of_another_shape_is_refused_with_the_shapes_it_may_have():
    placement = Frame("center", 64, 8).place(512, 256)
    with pytest.raises(
        UserError, match=r"100 x 300, the picture 64 x 64, the photo 512 x 256; paint it over one"
    ):
        read_mask(png(painted(100, 300, (0, 0, 50, 50))), placement, (64, 64))
    with pytest.raises(UserError, match="how its photo was cut is not known"):
        read_mask(png(painted(512, 256, (0, 0, 50, 50))), None, (64, 64))


def test_white_outside_the_piece_that_was_cut_out_is_said():
    placement = Frame("256,0,512,256", 64, 8).place(512, 256)
    with pytest.raises(UserError, match="lies outside the piece"):
        read_mask(png(painted(512, 256, (0, 0, 100, 100))), placement, (64, 64))


def png(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def test_only_the_stroke_counts_on_a_transparent_layer():
    mask = read_mask(CASES / "white_on_transparent.png", None, (256, 256))
    alpha = np.asarray(Image.open(CASES / "white_on_transparent.png").getchannel("A"), dtype=np.float32) / 255
    assert torch.equal(mask, torch.from_numpy(alpha))
    assert 0 < mask.mean() < 0.6


def test_labels_of_zero_and_one_are_labels():
    mask = read_mask(CASES / "labels01.png", None, (256, 256))
    assert torch.equal(
        mask, torch.from_numpy(np.asarray(Image.open(CASES / "labels01.png"), dtype=np.float32))
    )


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "gray palette", "dark red", "16 bit labels"]
)
def test_white_is_white_in_every_mode(mode):
    array = np.zeros((32, 32), np.uint8)
    array[8:24, 4:12] = 255
    gray = Image.fromarray(array)
    if mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16) * 257)
    elif mode == "16 bit labels":
        image = Image.fromarray((array > 0).astype(np.uint16))
    elif mode in ("gray palette", "dark red"):  # as data sets of segmentations are saved
        image = gray.point(lambda value: value // 255)
        image.putpalette([0, 0, 0, *((255, 255, 255) if mode == "gray palette" else (128, 0, 0))])
    else:
        image = gray.convert(mode)
    assert torch.equal(read_mask(png(image), None, (32, 32)), torch.from_numpy(array / 255).float())


def test_gray_is_a_soft_edge():
    soft = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    mask = read_mask(png(soft), None, (32, 32))
    expected = torch.arange(0, 256, 8) / 255
    expected[-1] = 1  # 248
    torch.testing.assert_close(mask[0], expected)


def test_what_jpeg_leaves_of_black_and_white_is_black_and_white():
    stream = io.BytesIO()
    painted(64, 64, (8, 16, 40, 48)).save(stream, "JPEG", quality=85)
    mask = read_mask(stream.getvalue(), None, (64, 64))
    assert (mask[:, 48:] == 0).all() and (mask[20:44, 12:36] == 1).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("L", (32, 32)), "black all over, so nothing would be edited; paint white"),
        (Image.new("RGBA", (32, 32), (255, 255, 255, 0)), "transparent parts count as black"),
        (
            Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))),
            "31 of 255 as its brightest value",
        ),
        (gradient(64, 64), "a photograph rather than a mask"),
    ],
)
def test_a_mask_that_is_none_says_what_to_paint(image, words, tmp_path):
    path = saved(image, tmp_path / "mask.png")
    with pytest.raises(UserError, match=words) as caught:
        read_mask(path, None, image.size[::-1])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read the mask .*gone\.png.*no such picture"):
        read_mask(tmp_path / "gone.png", None, (32, 32))


def test_a_placement_goes_there_and_back_and_a_damaged_one_is_one_line():
    placement = Frame("10,20,110,100", 64, 8).place(200, 120, orientation=6)
    assert Placement.from_dict(placement.to_dict()) == placement
    for damaged in (
        {},
        placement.to_dict() | {"box": [0, 0, 999, 10]},
        placement.to_dict() | {"size": "large"},
        placement.to_dict() | {"orientation": 9},
    ):
        with pytest.raises(UserError, match="damaged"):
            Placement.from_dict(damaged)
