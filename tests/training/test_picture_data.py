"""The pictures of a run: checked before anything loads, grouped by size, given out from the cursor on."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltext.data.frame import Frame
from nulltext.errors import UserError
from nulltext.training.datamodule import PictureData
from nulltext.training.groups import group_by_size
from nulltext.training.loader import TimestepLoader


def farm(folder, count=3):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (32 + 16 * number, 32), (200, 90, 60)).save(folder / f"{number}.png")
    return folder


def test_one_broken_picture_is_an_error_among_many_a_reason(tmp_path):
    folder = farm(tmp_path / "farm")
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"1\.png"):
        PictureData(image=folder / "1.png", prompt="x").setup("fit")
    data = PictureData(image=folder, prompt="x")
    data.setup("fit")
    assert [source.name for source in data.sources] == ["0", "2"]
    ((place, reason),) = data.broken
    assert place.endswith("1.png") and "not a picture" in reason


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "which picture"),
        ({"image": Path("x.png"), "batch_size": 0}, "batch_size"),
        ({"image": Path("x.png"), "max_pixels": 0}, "max_pixels"),
        ({"image": Path("x.png"), "crop": "left"}, "no rule"),
        ({"image": Path("x.png"), "size": 4}, "size 4"),
        ({"image": Path("no such.png")}, "no such picture"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(arguments, message):
    with pytest.raises(UserError, match=message):
        PictureData(**arguments).setup("fit")


def test_groups_hold_one_size_each_and_every_picture_once(tmp_path):
    data = PictureData(image=farm(tmp_path / "farm", 5), prompt="x", crop="none")
    data.setup("fit")
    groups = group_by_size(data.sources, Frame("center", 64, 8), 2)
    assert [[s.name for s in group] for group in groups] == [["0", "1"], ["2", "3"], ["4"]]
    frame = Frame("none", 64, 8)
    groups = group_by_size(data.sources, frame, 2)
    assert all(len({frame.target(s.size[1], s.size[0]) for s in group}) == 1 for group in groups)
    assert sorted(s.name for group in groups for s in group) == ["0", "1", "2", "3", "4"]


def test_loader_starts_at_the_cursor_and_keeps_its_length():
    state = {"group": 0, "cursor": 0}
    loader = TimestepLoader(
        4, lambda: (state["group"], state["cursor"]), read=lambda group: (f"group {group}",)
    )
    assert [batch.step for batch in loader] == [0, 1, 2, 3]
    state.update(cursor=3)
    assert [batch.step for batch in loader] == [3] and len(loader) == 4
    state.update(group=1, cursor=4)  # a finished group: the next one starts at its first step
    batches = list(loader)
    assert [batch.step for batch in batches] == [0, 1, 2, 3] and batches[0].pictures == ("group 1",)


def test_where_a_prompt_came_from_is_said_in_one_line(tmp_path, capsys):
    folder = farm(tmp_path / "farm", 1)
    (folder / "0.txt").write_text("a brick wall")
    PictureData(image=folder).setup("fit")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "a brick wall" in line]
    assert "0.txt" in line
    PictureData(image=folder, prompt="my own words").setup("fit")
    assert "my own words" not in capsys.readouterr().out


@pytest.fixture
def captioner(tmp_path):
    """The folder of a random BLIP model of ten words, and the words."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipTextConfig,
        BlipVisionConfig,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "photo", "of", "sheep"]
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = BlipTextConfig(
        vocab_size=len(words),
        bos_token_id=5,
        eos_token_id=3,
        sep_token_id=3,
        pad_token_id=0,
        encoder_hidden_size=16,
        projection_dim=16,
        **small,
    )
    vision = BlipVisionConfig(image_size=32, patch_size=16, projection_dim=16, **small)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    torch.manual_seed(0)
    model = tmp_path / "blip"
    BlipForConditionalGeneration(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(model)
    return str(model), words


def test_captioner_speaks_for_pictures_that_nothing_or_only_a_stamp_describes(captioner, tmp_path):
    model, words = captioner
    stamp = Image.Exif()
    stamp[0x010E] = "oznor"
    Image.new("RGB", (32, 32)).save(tmp_path / "silent.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "stamp.jpg", exif=stamp)
    for name in ("silent.png", "stamp.jpg"):
        data = PictureData(image=tmp_path / name, captioner=model)
        data.setup("fit")
        assert set(data.sources[0].prompt.split()) <= set(words)
        assert data.sources[0].prompt_source == f"captioner {model}"
    with pytest.raises(UserError, match="cannot load the captioner"):
        PictureData(image=tmp_path / "silent.png", captioner=str(tmp_path)).setup("fit")
