"""Any mode, any profile, any turn comes out as upright sRGB."""

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import exif, gradient, read, saved
from PIL import Image, ImageCms
from profiles import ADOBE, cmyk, gray

from nulltext.data.colour import upright
from nulltext.data.decode import decode
from nulltext.pixels import from_image

CASES = Path(__file__).parent / "cases"


def array_of(path):
    return np.asarray(upright(decode(path)[0]), dtype=int)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_gives_the_same_gray(mode, tmp_path):
    white = Image.new("L", (32, 32), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 65535, np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((32, 32), 65535, np.int32))
    elif mode == "F":
        image = Image.fromarray(np.full((32, 32), 1.0, np.float32))
    else:
        image = white.convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr", "F", "I") else "png"
    picture = read(saved(image, tmp_path / f"white.{suffix}"), size=32)
    assert picture.pixels.shape == (3, 32, 32)
    torch.testing.assert_close(picture.pixels, torch.ones(3, 32, 32), atol=0.02, rtol=0)


def test_sixteen_bits_keep_their_half_tone(tmp_path):
    path = saved(Image.fromarray(np.full((32, 32), 32768, np.uint16)), tmp_path / "half.png")
    torch.testing.assert_close(read(path, size=32).pixels, torch.zeros(3, 32, 32), atol=0.005, rtol=0)


def test_transparency_lies_on_white(tmp_path):
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert read(saved(image, tmp_path / "clear.png"), size=32).pixels.min() == 1.0
    palette = Image.new("P", (32, 32), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert read(saved(palette, tmp_path / "clear.gif", transparency=0), size=32).pixels.min() == 1.0


def test_exif_rotation_is_applied(tmp_path):
    image = gradient(64, 32)
    path = saved(
        image, tmp_path / "turned.png", exif=exif(orientation=6)
    )  # held upright: a quarter clockwise
    picture = read(path, crop="none", size=32)
    assert picture.placement.original == (64, 32) and picture.placement.orientation == 6
    turned = np.asarray(upright(decode(path)[0]))
    assert np.array_equal(turned, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_display_p3_decodes_to_the_same_pixels_as_srgb():
    phone, plain = (upright(decode(CASES / name)[0]) for name in ("sheep_p3.jpg", "sheep_srgb.png"))
    assert (from_image(phone) - from_image(plain)).abs().mean() < 0.015  # what JPEG rounds
    ignored = decode(CASES / "sheep_p3.jpg")[0]
    assert (from_image(ignored) - from_image(plain)).abs().mean() > 0.04


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_wide_gamut_profile_is_applied_in_every_mode_that_can_carry_it(mode, tmp_path):
    """In Adobe RGB a green of 200 is more vivid than sRGB's, and white stays white."""
    image = Image.new("RGB", (32, 32), (60, 200, 60) if mode != "L" else (128, 128, 128))
    image.paste((255, 255, 255), (0, 0, 32, 8))
    image = image.convert(mode)
    pixels = array_of(saved(image, tmp_path / "adobe.png", icc_profile=ADOBE))
    assert np.abs(pixels[2, 2] - 255).max() <= 2
    if mode == "L":
        assert np.abs(pixels[20, 20] - 128).max() <= 3  # gray stays gray
    else:
        assert pixels[20, 20, 0] < 30 and abs(pixels[20, 20, 1] - 200) < 8


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_linear_gray_profile_lightens_the_half_tones(mode, tmp_path):
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 55 * 257, np.uint16))
    else:
        image = Image.new("L", (32, 32), 55).convert(mode)
    pixels = array_of(saved(image, tmp_path / "linear.png", icc_profile=gray(1.0)))
    assert np.abs(pixels - 128).max() <= 2  # 55/255 of the light is sRGB's 128


def test_a_press_profile_decides_how_cmyk_looks(tmp_path):
    image = Image.new("CMYK", (32, 32), (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (0, 0, 32, 16))
    for suffix in ("jpg", "tif"):
        pixels = array_of(saved(image, tmp_path / f"press.{suffix}", icc_profile=cmyk()))
        assert pixels[24, 16].min() > 250  # blank paper
        inked = pixels[8, 16]
        assert (
            inked.max() - inked.min() <= 8 and 60 < inked.mean() < 200
        )  # the press has one gray ink, not cyan
        assert array_of(saved(image, tmp_path / f"plain.{suffix}"))[8, 16, 0] < 60  # cyan without it


@pytest.mark.parametrize(
    "broken", [b"", b"no profile", ADOBE[:200], ADOBE[:100] + b"\xff" * 300, gray(1.0), cmyk(), b"\0" * 5000]
)
def test_a_profile_that_is_damaged_or_of_another_space_is_ignored(broken, tmp_path):
    image = gradient(32, 32)
    path = saved(image, tmp_path / "odd.png", icc_profile=broken)
    assert np.array_equal(array_of(path), np.asarray(image))


def test_srgb_under_its_own_name_leaves_every_bit(tmp_path):
    image = gradient(64, 64)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(
        array_of(saved(image, tmp_path / "srgb.png", icc_profile=profile)), np.asarray(image)
    )


def test_lab_is_a_colour_space_too(tmp_path):
    lab = Image.merge("LAB", [Image.new("L", (32, 32), v) for v in (255, 128, 128)])
    assert array_of(saved(lab, tmp_path / "lab.tif")).min() > 250
