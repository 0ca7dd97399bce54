"""An edit goes back into the photograph; what it does not touch stays to the bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from nulltext.cli.main import main
from nulltext.data import Frame
from nulltext.editing.paste import paste
from nulltext.pixels import from_image

SIZES = [(3000, 2000), (400, 651), (64, 64)]


def photo_of(width: int, height: int) -> Image.Image:
    return Image.fromarray(photographs.astronaut()).resize((width, height), Image.Resampling.BICUBIC)


def piece_of(photo: Image.Image, crop: str = "center"):
    place = Frame(crop, 64).place(*photo.size)
    return place, from_image(place.apply(photo))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["center", "none"])
def test_an_edit_that_changes_nothing_gives_the_photograph(size, crop):
    photo = photo_of(*size)
    place, original = piece_of(photo, crop)
    assert paste(photo, place, original, original).tobytes() == photo.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_pixels_away_from_the_change_stay_to_the_bit_and_the_change_is_there(size):
    photo = photo_of(*size)
    place, original = piece_of(photo)
    edited = original.clone()
    edited[:, 20:40, 24:44] = torch.tensor([0.9, -0.9, -0.9])[:, None, None]
    full = np.asarray(paste(photo, place, edited, original))
    left, top, right, _ = place.box
    scale = (right - left) / 64
    rows, columns = np.mgrid[: photo.height, : photo.width] + 0.5
    x, y = (columns - left) / scale, (rows - top) / scale  # in the model's pixels
    outside = (x < 24 - 3) | (x > 44 + 3) | (y < 20 - 3) | (y > 40 + 3)
    assert (full[outside] == np.asarray(photo)[outside]).all()
    inside = (x > 24 + 2) & (x < 44 - 2) & (y > 20 + 2) & (y < 40 - 2)
    assert np.abs(full[inside].mean(axis=0) - [242, 13, 13]).max() < 12


def test_a_faint_change_keeps_the_grain_of_the_photograph():
    """A little brighter all over: the photo's own detail, which 64 pixels cannot hold, is still there."""
    photo = photo_of(1024, 1024)
    place, original = piece_of(photo)
    full = np.asarray(paste(photo, place, (original + 0.04).clamp(-1, 1), original), dtype=float)
    before = np.asarray(photo, dtype=float)
    inner = np.s_[100:-100, 100:-100]
    detail = np.corrcoef(np.diff(full[inner], axis=0).ravel(), np.diff(before[inner], axis=0).ravel())[0, 1]
    assert detail > 0.95
    assert 3 < (full - before)[inner].mean() < 7


def test_the_command_writes_it_beside_the_edit_and_refuses_another_photo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photo_of(300, 200).save("photo.png")
    photo_of(200, 200).save("other.png")
    prompt = "a photo of a white dog with a red hat"
    quick = ["--model.steps", "3", "--model.inner_steps", "1", "--device", "cpu"]
    assert main(["fit", "--data.image", "photo.png", "--data.prompt", prompt, *quick]) == 0
    edit = ["edit", "--inversion", "lightning_logs/version_0", "--swap", "red:blue", "--judge", "none"]
    assert main([*edit, "--photo", "other.png"]) == 2
    assert "is not the picture that was inverted" in capsys.readouterr().err
    assert main([*edit, "--photo", "photo.png"]) == 0
    (full,) = Path("lightning_logs/version_0/photo/edits").glob("*-full.png")
    with Image.open(full) as image:
        assert image.size == (300, 200)
        assert image.text["prompt"] == prompt.replace("red", "blue")
    facts = json.loads(full.with_name(full.name.replace("-full.png", ".json")).read_text())
    assert facts["prompt"] == prompt.replace("red", "blue")
