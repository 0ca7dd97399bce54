"""A picture cut, resized and named; sizes and crops as people write them; what a notebook gives."""

import numpy as np
import pytest
import torch
from drawn import exif, gradient, read, saved
from PIL import Image

from nulltext.data.frame import Frame, parse_size
from nulltext.data.picture import picture_from
from nulltext.errors import UserError
from nulltext.pixels import from_image, to_image

RNG = np.random.default_rng(0)


def test_pixels_are_the_inverse_of_the_image():
    image = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = from_image(image)
    assert pixels.dtype == torch.float32 and pixels.min() >= -1 and pixels.max() <= 1
    assert np.array_equal(np.asarray(to_image(pixels)), np.asarray(image))


def test_center_cuts_the_middle_square():
    assert Frame("center", 64, 8).box(100, 60) == (20, 0, 80, 60)
    assert Frame("center", 64, 8).target(100, 60) == (64, 64)
    assert Frame("center", (32, 64), 8).box(60, 100) == (0, 35, 60, 65)


@pytest.mark.parametrize("width, height", [(300, 200), (200, 300), (64, 64), (1000, 100)])
def test_none_keeps_shape_and_area(width, height):
    rows, columns = Frame("none", 64, 8).target(width, height)
    assert rows % 8 == 0 and columns % 8 == 0
    assert rows * columns == pytest.approx(64 * 64, rel=0.3)
    assert columns / rows == pytest.approx(width / height, rel=0.3)


def test_box_is_in_pixels_of_the_original(tmp_path):
    path = saved(gradient(64, 64), tmp_path / "g.png")
    picture = read(path, crop="16,0,48,32", size=32)
    expected = from_image(gradient(64, 64).crop((16, 0, 48, 32)))
    assert torch.equal(picture.pixels, expected)


@pytest.mark.parametrize(
    "crop, size, message",
    [
        ("middle", 64, "center, none, or left"),
        ("0,0,4,4", 64, "holds no picture"),
        ("0,0,500,500", 64, "leaves the picture"),
        ("center", 60, "nearest that does is --data.size 64"),
        ("none", 16, "too narrow"),
    ],
)
def test_a_rule_that_cannot_work_says_what_can(crop, size, message, tmp_path):
    path = saved(gradient(400, 32), tmp_path / "g.png")
    with pytest.raises(UserError, match=message):
        read(path, crop=crop, size=size)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        (512, 512),
        ("512", 512),
        ("32,48", (32, 48)),
        ("48x32", (32, 48)),
        ("48 X 32", (32, 48)),
        ("48\u00d732", (32, 48)),
        ("[32, 48]", (32, 48)),
        ("(32; 48)", (32, 48)),
        ("32 48", (32, 48)),
        ([32, 48], (32, 48)),
        ((32, 48), (32, 48)),
        ([64], 64),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["large", "32,48,64", "", "-5", "1.5", True, [1, 2, 3], "32,", "x32"])
def test_a_size_that_is_none_says_how_to_write_one(text):
    with pytest.raises(
        UserError, match="such as 512, height,width such as 32,48, or width x height such as 48x32"
    ):
        parse_size(text)


def test_a_photo_that_shrinks_a_lot_says_so(tmp_path):
    (note,) = read(saved(gradient(3000, 2000), tmp_path / "big.jpg"), crop="none", size=64).notes
    assert "3000 x 2000 pixels become 80 x 56, 38 to one" in note and "--data.crop" in note
    assert read(tmp_path / "big.jpg", crop="100,100,500,500").notes == []
    assert read(saved(gradient(512, 512), tmp_path / "small.jpg")).notes == []


def test_a_picture_from_whatever_a_notebook_has(tmp_path):
    image, frame = gradient(64, 48), Frame("none", (48, 64), 8)
    path = saved(image, tmp_path / "sheep.png")
    array = np.asarray(image)
    sources = [
        path,
        str(path),
        image,
        array,
        array / 255.0,
        array.astype(np.float32) / 255,
        from_image(image),
    ]
    sources += [
        from_image(image)[None],
        np.dstack([array, np.full((48, 64), 255, np.uint8)]),
        array.astype(np.uint16) * 257,
    ]
    for source in sources:
        picture = picture_from(source, frame, prompt="a sheep")
        assert torch.equal(picture.pixels, from_image(image)) and picture.prompt == "a sheep"
        assert len(picture.sha256) == 64 and picture.size == (48, 64)
    assert (
        picture_from(path, frame, prompt="x").name == "sheep"
        and picture_from(image, frame, prompt="x").path is None
    )
    gray = picture_from(array[..., 0], frame, prompt="x").pixels
    assert torch.equal(gray[0], from_image(image)[0]) and torch.equal(gray[0], gray[2])


def test_a_pil_picture_says_its_own_prompt_and_is_turned():
    image = gradient(64, 48)
    block = exif(description="a sheep on a hill", orientation=6)
    image.info["exif"] = block.tobytes()
    picture = picture_from(image, Frame("none", 64, 8))
    assert picture.prompt == "a sheep on a hill" and picture.placement.original == (64, 48)
    with pytest.raises(UserError, match="prompt='a photo of"):
        picture_from(gradient(64, 48), Frame())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 64, 64)), r"give \(height, width, 3\)"),
        (np.full((64, 64, 3), 2.0), r"must lie in \[0, 1\]"),
        (np.full((64, 64, 3), np.nan), r"must lie in \[0, 1\]"),
        (np.array(["a"]), "no picture"),
        (torch.full((3, 64, 64), 128.0), r"x / 127.5 - 1"),
        (torch.rand(3, 64, 64), r"give 2 \* x - 1"),
        (torch.zeros(3, 63, 64), "multiples of 8"),
        (torch.zeros(64, 64, 3), r"floats \(3, height, width\)"),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), r"floats \(3, height, width\)"),
        (Image.new("RGB", (3, 3)), "at least 16"),
    ],
)
def test_what_is_no_picture_says_what_is(source, words):
    with pytest.raises(UserError, match=words):
        picture_from(source, Frame(), prompt="x")
