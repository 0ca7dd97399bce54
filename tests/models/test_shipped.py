"""The shipped weights, whole and spoilt, and the words that they know."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nulltext.errors import UserError
from nulltext.models import DiffusionModel, check_model, shipped
from nulltext.models.vocabulary import unknown_words, words_of


@pytest.fixture
def farmyard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the farmyard's folder, to be spoilt, in the place of the shipped one."""
    folder = Path(shutil.copytree(shipped.PRETRAINED, tmp_path / "pretrained"))
    monkeypatch.setattr(shipped, "PRETRAINED", folder)
    return folder


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("unet/diffusion_pytorch_model.safetensors", _flip_a_byte, "are damaged"),
        ("clip/model.safetensors", _flip_a_byte, "are damaged"),
        ("vae/diffusion_pytorch_model.safetensors", Path.unlink, "lack"),
        ("model_index.json", Path.unlink, "lack"),
        ("", shutil.rmtree, "are missing"),
    ],
)
def test_a_spoilt_farmyard_is_one_line_with_the_cure(
    farmyard: Path, file: str, spoil: Any, said: str
) -> None:
    spoil(farmyard / file)
    with pytest.raises(UserError, match=said) as error:
        check_model("farmyard")
    message = str(error.value)
    assert "\n" not in message and str(farmyard / file) in message
    assert message.endswith("make them again: python -m nulltext.farmyard train")


def test_the_shipped_folder_is_whole_and_says_what_it_knows() -> None:
    assert check_model("farmyard") == shipped.PRETRAINED
    known = DiffusionModel.from_pretrained().known_words
    assert known is not None and {"sheep", "meadow", "barn"} <= known


def test_words_are_told_apart_whatever_stands_between_them() -> None:
    assert words_of("A farmer's sheep, 3 elks!") == ["a", "farmer's", "sheep", "3", "elks"]
    known = frozenset({"a", "photo", "of", "tree", "next", "to"})
    assert unknown_words("a photo of a Zebra, a zebra next to a tree!", known) == ["zebra"]


def test_a_model_of_few_words_says_that_it_may_not_know_a_picture(tiny_sd: Path) -> None:
    note = DiffusionModel.from_pretrained().picture_note
    assert note is not None and "no photographs" in note and "--model.pretrained" in note
    assert DiffusionModel.from_pretrained(str(tiny_sd)).picture_note is None
