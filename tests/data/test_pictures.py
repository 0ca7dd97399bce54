"""Pictures of every kind, prompts by five ways, groups, and the loader that starts at the cursor."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from nulltext.data import PictureData, TimestepLoader, find_pictures, group_by_size, unique_names
from nulltext.errors import UserError
from nulltext.pictures import Frame, decode, read_picture, to_image, to_pixels, upright
from nulltext.prompts import Row, read_metadata

RNG = np.random.default_rng(0)


def gradient(width, height):
    """RGB whose red grows to the right and green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], -1).astype(np.uint8))


def saved(image, path, **options):
    image.save(path, **options)
    return path


def read(path, **options):
    return read_picture(path, **{"prompt": "a picture", "size": 64, "multiple": 8, **options})


def test_pixels_are_the_inverse_of_the_image():
    image = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = to_pixels(image)
    assert pixels.dtype == torch.float32 and pixels.min() >= -1 and pixels.max() <= 1
    assert np.array_equal(np.asarray(to_image(pixels)), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_gives_the_same_gray(mode, tmp_path):
    gray = Image.new("L", (32, 32), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 65535, np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((32, 32), 65535, np.int32))
    elif mode == "F":
        image = Image.fromarray(np.full((32, 32), 1.0, np.float32))
    else:
        image = gray.convert(mode)
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
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees clockwise
    image = gradient(64, 32)
    path = saved(image, tmp_path / "turned.png", exif=exif)
    picture = read(path, crop="none", size=32)
    assert picture.original_size == (64, 32)
    turned = np.asarray(upright(decode(path)[0]))
    assert np.array_equal(turned, np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


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
    expected = to_pixels(gradient(64, 64).crop((16, 0, 48, 32)))
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


def png_header(width, height):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(50_000, 50_000))
    with pytest.raises(UserError, match="max_pixels"):
        read(bomb)


def test_broken_files_are_one_line_each(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole, "JPEG")
    cases = {
        "none.png": None,
        "words.jpg": b"these are words",
        "empty.png": b"",
        "half.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="1 x 1 pixels"):
        read(saved(Image.new("RGB", (1, 1)), tmp_path / "dot.png"))
    with pytest.raises(UserError, match="folder, not a picture"):
        read(tmp_path)


def test_prompt_by_each_way_and_in_their_order(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a cow from its EXIF"
    path = saved(gradient(32, 32), tmp_path / "cow.jpg", exif=exif)
    assert read(path, prompt=None).prompt == "a cow from its EXIF"
    path.with_suffix(".txt").write_text("a cow from\nthe text beside it\n")
    assert read(path, prompt=None).prompt == "a cow from the text beside it"
    assert read(path, prompt=None, row=Row(path, "a cow from the row")).prompt == "a cow from the row"
    assert read(path, prompt="a cow as I say").prompt == "a cow as I say"
    assert read(path, prompt="").prompt == ""

    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", "ein Schäfchen")
    assert (
        read(saved(gradient(32, 32), tmp_path / "s.png", pnginfo=text), prompt=None).prompt == "ein Schäfchen"
    )


def test_no_prompt_names_the_five_ways(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "OLYMPUS DIGITAL CAMERA"
    path = saved(gradient(32, 32), tmp_path / "stamp.jpg", exif=exif)
    with pytest.raises(UserError) as caught:
        read(path, prompt=None)
    for way in ("--data.prompt", "metadata.jsonl", "stamp.txt", "ImageDescription", "--data.captioner"):
        assert way in str(caught.value)


def test_metadata_rows_may_not_leave_their_folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    saved(gradient(32, 32), tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    lines = [
        json.dumps({"file_name": "a.png", "prompt": "a", "target_prompt": "b", "blend_word": "c"}),
        json.dumps({"file_name": "../secret.png", "prompt": "x"}),
        json.dumps({"file_name": str(tmp_path / "secret.png"), "prompt": "x"}),
        json.dumps({"file_name": "link.png", "prompt": "x"}),
        json.dumps({"file_name": "a\0.png", "prompt": "x"}),
        json.dumps({"file_name": "a.png", "prompt": ["x"]}),
        json.dumps({"prompt": "x"}),
        json.dumps(["a.png"]),
        "{",
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    rows, problems = read_metadata(folder / "metadata.jsonl")
    assert [(row.path, row.prompt, row.target_prompt, row.blend_word) for row in rows] == [
        (folder / "a.png", "a", "b", "c")
    ]
    assert [place for place, _ in problems] == [f"metadata.jsonl:{n}" for n in range(2, 10)]
    assert sum("leaves the folder" in reason for _, reason in problems) == 4


def test_metadata_csv_equals_jsonl(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,prompt,mask_file_name\na.png,"a, b",m.png\n')
    (row,), problems = read_metadata(tmp_path / "metadata.csv")
    assert row == Row(tmp_path / "a.png", "a, b", mask_path=tmp_path / "m.png") and not problems
    (tmp_path / "metadata.csv").write_text("name,prompt\na.png,x\n")
    with pytest.raises(UserError, match="no column file_name"):
        read_metadata(tmp_path / "metadata.csv")


def farm(folder, count=3):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        saved(gradient(32 + 16 * number, 32), folder / f"{number}.png")
    return folder


def test_files_folders_globs_and_tables_find_the_same(tmp_path):
    folder = farm(tmp_path / "farm")
    (folder / "notes.txt").write_text("no picture")
    paths = [folder / f"{n}.png" for n in range(3)]
    for wanted in ([folder], paths, [folder / "*.png"], [folder, paths[0]]):
        rows, broken = find_pictures(wanted)
        assert [row.path for row in rows] == paths and not broken
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "1.png", "prompt": "one", "mask_file_name": "2.png"}\n'
        '{"file_name": "gone.png", "prompt": "x"}'
    )
    rows, _ = find_pictures([folder / "metadata.jsonl"])
    assert [row.path.name for row in rows] == ["1.png", "gone.png"]
    rows, _ = find_pictures([folder])
    assert [(row.path.name, row.prompt) for row in rows] == [
        ("0.png", None),
        ("1.png", "one"),
        ("gone.png", "x"),
    ]
    assert find_pictures([paths[1]])[0][0].prompt == "one"
    for nothing in (tmp_path / "*.jpg", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="no picture"):
            find_pictures([nothing])


def test_names_are_unique_and_never_a_folder_of_the_run():
    paths = [Path(p) for p in ("a/sheep.png", "b/sheep.jpg", "b/Sheep.webp", "checkpoints.png", "a/.. .png")]
    names = list(unique_names(paths).values())
    assert names[:4] == ["sheep", "sheep-2", "Sheep-3", "checkpoints-2"]
    assert len({name.casefold() for name in names}) == 5 and all(name.strip(".") for name in names)


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


def test_loader_starts_where_the_module_stands_and_keeps_its_length():
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


def test_captioner_speaks_for_pictures_that_nothing_describes(tmp_path):
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipTextConfig,
        BlipVisionConfig,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "photo", "of", "sheep"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
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

    data = PictureData(image=saved(gradient(32, 32), tmp_path / "silent.png"), captioner=str(model))
    data.setup("fit")
    assert set(data.sources[0].prompt.split()) <= set(words)
    with pytest.raises(UserError, match="cannot load the captioner"):
        PictureData(image=tmp_path / "silent.png", captioner=str(tmp_path)).setup("fit")
