"""Prompts by five ways; what machines stamp into pictures is none; what front ends write is."""

import json
from pathlib import Path

import pytest
from drawn import exif, gradient, read, saved
from PIL import Image, PngImagePlugin

from nulltext.data.metadata import Row
from nulltext.data.prompts import find_prompt, plain_words, weights_note
from nulltext.data.prompts.stamps import is_stamp
from nulltext.errors import UserError
from nulltext.pixels import save_png

CASES = Path(__file__).parent / "cases"
A1111 = "a white sheep on a meadow, masterpiece\nNegative prompt: ugly\nSteps: 20, CFG scale: 7, Seed: 1"


def png_with(path, **texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    return saved(gradient(32, 32), path, pnginfo=info)


def found(path):
    picture = read(path, prompt=None)
    return picture.prompt, picture.prompt_source


def test_prompt_by_each_way_and_in_their_order(tmp_path):
    path = saved(gradient(32, 32), tmp_path / "cow.jpg", exif=exif(description="a cow from its EXIF"))
    assert found(path) == ("a cow from its EXIF", "its EXIF ImageDescription")
    path.with_suffix(".caption").write_text("a cow from kohya's caption")
    assert found(path) == ("a cow from kohya's caption", "cow.caption")
    path.with_suffix(".txt").write_text("a cow from\nthe text beside it\n")
    assert found(path) == ("a cow from the text beside it", "cow.txt")
    row = Row(path, "a cow from the row", place="metadata.jsonl:3")
    picture = read(path, prompt=None, row=row)
    assert (picture.prompt, picture.prompt_source) == ("a cow from the row", "metadata.jsonl:3")
    picture = read(path, prompt="a cow as I say", row=row)
    assert (picture.prompt, picture.prompt_source) == ("a cow as I say", "given")
    assert read(path, prompt="").prompt == ""
    assert found(png_with(tmp_path / "s.png", Description="ein Schäfchen"))[0] == "ein Schäfchen"


def test_no_prompt_names_the_five_ways(tmp_path):
    path = saved(gradient(32, 32), tmp_path / "stamp.jpg", exif=exif(description="OLYMPUS DIGITAL CAMERA"))
    with pytest.raises(UserError) as caught:
        read(path, prompt=None)
    for way in ("--data.prompt", "metadata.jsonl", "stamp.txt", "ImageDescription", "--data.captioner"):
        assert way in str(caught.value)


def test_a_phones_code_is_no_prompt_and_the_next_way_is_tried(tmp_path):
    with pytest.raises(UserError, match=r"'oznor', is a machine's stamp.*--data\.prompt"):
        read(CASES / "huawei.jpg", prompt=None)
    with pytest.raises(UserError, match="'Created with GIMP', is a machine's stamp"):
        read(png_with(tmp_path / "gimp.png", Comment="Created with GIMP"), prompt=None)
    both = png_with(tmp_path / "both.png", Comment="Created with GIMP", Title="a sheep on a hill")
    assert found(both) == ("a sheep on a hill", "its PNG text 'Title'")
    with Image.open(CASES / "huawei.jpg") as image:
        prompt = find_prompt(CASES / "huawei.jpg", image, caption=lambda seen: f"a picture of {seen.mode}")
    assert prompt == ("a picture of RGB", "captioner")


STAMPS = """oznor|ozedfCO|hdrpl|rhdr|dav|cof|SONY DSC|OLYMPUS DIGITAL CAMERA|Minolta DSC|Digital StillCamera
KODAK Digital Still Camera|Created with GIMP|Created with The GIMP|Created by Paint.NET|Edited in Lightroom
File written by Adobe Photoshop® 5.2|CREATOR: gd-jpeg v1.0 (using IJG JPEG v62), quality = 90|Lavc58.54.100
Processed with VSCO with a6 preset|Shot on OnePlus|LEAD Technologies Inc. V1.01|Optimized by JPEGmini|AppleMark
Screenshot|Screenshot 2024-01-01 at 10.00.00|EPSON scanner image|Canon MX490 series|Scanned by CamScanner
Untitled|Untitled-1|Image 3|default|IMG_1234|IMG_1234.JPG|DSC00012|PXL_20230101_120000|P1010001
DCIM\\100MEDIA\\DJI_0001.JPG|2019:07:01 12:00:00|Copyright 2019 Jane Doe|(c) Jane Doe|© Jane, all rights reserved
https://example.org/x|ImageJ=1.53t images=3 slices=3|<x:xmpmeta xmlns:x="adobe:ns:meta/">|Software: Snapseed 2.0
Exif_JPEG_PICTURE|binary comment|User comments|NovelAI generated image|---|Intel(R) JPEG Library, version 1.5"""
CAPTIONS = """sheep|Schaf|cat|a white sheep|Girl looking at camera|a man holding a digital camera on a beach|羊
Old fax machine on a desk|Adobe house in Santa Fe|Untitled sheep on a hill|Made of wood: a small barn
Screenshot of a website about sheep|a photo of a cat|New York at night|My cat on the sofa|Image of a red barn
Created with love by my daughter, a drawing of a red house next to a tall green tree|Ship by 3 barns|2 dogs
Shot on a rainy day, a dog under a tree|AI generated image of a sheep on a meadow|Camera on a wooden table"""


def test_stamps_of_cameras_phones_scanners_and_programs_are_told_from_captions():
    stamps, captions = (text.replace("\n", "|").split("|") for text in (STAMPS, CAPTIONS))
    assert [text for text in stamps if not is_stamp(text)] == []
    assert [text for text in captions if is_stamp(text)] == []


def test_a_description_that_repeats_the_device_is_a_stamp(tmp_path):
    tags = {"make": "HUAWEI", "model": "Nova Prime"}
    for words in ("Nova Prime", "huawei nova prime", "xyzzy"):
        path = saved(gradient(32, 32), tmp_path / "x.jpg", exif=exif(description=words, **tags))
        with pytest.raises(UserError, match="a machine's stamp"):
            read(path, prompt=None)
    path = saved(gradient(32, 32), tmp_path / "x.jpg", exif=exif(description="a sheep", **tags))
    assert found(path)[0] == "a sheep"


def user_comment(content):
    block = Image.Exif()
    block.get_ifd(0x8769)[0x9286] = content
    return block


GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["6", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a (white:1.2) sheep"}},
}
LOOP = {"1": {"class_type": "A", "inputs": {"positive": ["1", 0]}}}


@pytest.mark.parametrize(
    ("texts", "prompt"),
    [
        ({"parameters": A1111}, "a white sheep on a meadow, masterpiece"),
        (
            {"parameters": "a ((white)) (sheep:1.3) [on|at] a meadow <lora:wool:0.8>\nSteps: 20, Seed: 1"},
            "a white sheep on a meadow",
        ),
        ({"parameters": "a white sheep"}, "a white sheep"),
        ({"parameters": json.dumps({"sui_image_params": {"prompt": "a (black:1.1) cow"}})}, "a black cow"),
        ({"prompt": json.dumps(GRAPH), "workflow": "{}"}, "a white sheep"),
        ({"invokeai_metadata": json.dumps({"positive_prompt": "a goat", "negative_prompt": "x"})}, "a goat"),
        ({"sd-metadata": json.dumps({"image": {"prompt": [{"prompt": "a hen", "weight": 1}]}})}, "a hen"),
        ({"Dream": '"a duck on a pond" -s 50 -S 1 -W 512'}, "a duck on a pond"),
        (
            {"Comment": json.dumps({"prompt": "a pig", "uc": "ugly"}), "Title": "NovelAI generated image"},
            "a pig",
        ),
        ({"prompt": "a photo (old) of a horse"}, "a photo (old) of a horse"),
        ({"parameters": A1111, "Description": "my own words"}, "my own words"),
    ],
)
def test_the_prompt_that_a_front_end_wrote_is_found(texts, prompt, tmp_path):
    assert found(png_with(tmp_path / "x.png", **texts))[0] == prompt


@pytest.mark.parametrize(
    "content",
    [
        b"UNICODE\0" + A1111.encode("utf-16-be"),
        b"UNICODE\0" + A1111.encode("utf-16-le"),
        b"ASCII\0\0\0" + A1111.encode(),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_it_is_found_in_jpeg_and_webp_too(content, suffix, tmp_path):
    path = saved(gradient(32, 32), tmp_path / f"x.{suffix}", exif=user_comment(content))
    assert found(path) == ("a white sheep on a meadow, masterpiece", "its EXIF UserComment")


@pytest.mark.parametrize(
    "texts",
    [
        {"parameters": "Negative prompt: ugly\nSteps: 20, Seed: 1"},
        {"prompt": json.dumps(LOOP)},
        {"prompt": "[" * 100_000},
        {"prompt": "{}"},
        {"Comment": json.dumps({"steps": 3})},
        {"Comment": json.dumps([1, [2, None]])},
    ],
)
def test_a_front_end_without_a_prompt_gives_none(texts, tmp_path):
    if texts.get("prompt") == "[" * 100_000:
        assert "[" in found(png_with(tmp_path / "x.png", **texts))[0]  # no JSON: words, if strange ones
        return
    with pytest.raises(UserError, match="no prompt; give --data"):
        read(png_with(tmp_path / "x.png", **texts), prompt=None)


def test_an_edit_that_was_saved_carries_its_prompt(tmp_path):
    save_png(tmp_path / "horse.png", gradient(32, 32), {"prompt": "a photo of a black horse, 馬 \U0001f40e"})
    assert found(tmp_path / "horse.png") == (
        "a photo of a black horse, 馬 \U0001f40e",
        "its PNG text 'prompt'",
    )


def test_windows_titles_and_undeclared_encodings(tmp_path):
    title = "ein Schäfchen, 羊".encode("utf-16-le") + b"\0\0"
    path = saved(gradient(32, 32), tmp_path / "x.jpg", exif=exif(title=title))
    assert found(path) == ("ein Schäfchen, 羊", "its EXIF XPTitle")
    path = saved(
        gradient(32, 32), tmp_path / "x.jpg", exif=exif(description="羊のいる牧場".encode("shift-jis"))
    )
    with pytest.raises(
        UserError, match=r"x\.jpg: no prompt \(its EXIF ImageDescription is in an unknown encoding\)"
    ):
        read(path, prompt=None)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a (sheep:1.3) on a meadow", "--equalizer 'sheep:1.3'"),
        ("a ((white)) sheep", "--equalizer 'white:1.3'"),
        ("a sheep++ on a meadow", "--equalizer 'sheep:1.3'"),
        ("a [sheep|goat] on a meadow", "write one of the alternatives"),
        ("a [sheep:goat:0.5]", "write one of the alternatives"),
        ("a {red|blue} barn", "write one of the alternatives"),
        ("a sheep <lora:wool:0.8>", "loads no adapter here"),
    ],
)
def test_weights_in_a_prompt_say_what_to_use_instead(prompt, words, tmp_path):
    assert words in weights_note(prompt) and "\n" not in weights_note(prompt)
    path = saved(gradient(32, 32), tmp_path / "x.png")
    assert read(path, prompt=prompt).prompt == prompt and len(read(path, prompt=prompt).notes) == 1


@pytest.mark.parametrize(
    "prompt",
    [
        "a photo of a sheep",
        "a photo (black and white) of a barn",
        "a [white] sheep",
        "C+ on a screen",
        "5:30 pm (dusk)",
        "a mother-in-law, 10 < 20",
    ],
)
def test_plain_prompts_are_left_alone(prompt):
    assert weights_note(prompt) is None


def test_words_without_their_weights():
    assert plain_words(r"a \(real\) (sheep:1.2), [goat:elk:0.4] BREAK [cow], <hypernet:x:1>") == (
        "a (real) sheep, elk, cow"
    )
