"""Texts and names as people save them."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from drawn import gradient, read, saved

from nulltext.data.find import find_pictures, unique_names
from nulltext.data.metadata import read_metadata
from nulltext.data.picture import read_picture
from nulltext.data.text import decode_text, on_disk, one_line, undeclared_text
from nulltext.errors import UserError

CASES = Path(__file__).parent / "cases"
CAPTION = "a photo of a café in Zürich"


def test_the_caption_that_notepad_saved_is_read_right():
    picture = read_picture(CASES / "utf16.jpg")
    assert picture.prompt == CAPTION and picture.prompt_source == "utf16.txt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "be"])
def test_the_byte_order_mark_decides(encoding, tmp_path):
    words = f"{CAPTION} 山羊 \U0001f411"
    content = b"\xfe\xff" + words.encode("utf-16-be") if encoding == "be" else words.encode(encoding)
    path = saved(gradient(32, 32), tmp_path / "cafe.png")
    path.with_suffix(".txt").write_bytes(content)
    assert read(path, prompt=None).prompt == words
    (tmp_path / "metadata.jsonl").write_bytes(
        json.dumps({"file_name": "cafe.png", "prompt": words}, ensure_ascii=False).encode(
            encoding if encoding != "be" else "utf-16"
        )
    )
    assert read_metadata(tmp_path / "metadata.jsonl")[0][0].prompt == words


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1250", "utf-16-le", "utf-16-be"])
def test_a_text_that_is_neither_is_refused_by_name(encoding, tmp_path):
    path = saved(gradient(32, 32), tmp_path / "cafe.png")
    path.with_suffix(".txt").write_bytes(CAPTION.encode(encoding))
    with pytest.raises(
        UserError, match=r"cafe\.txt is not UTF-8 text, nor marked as UTF-16; save it as UTF-8"
    ):
        read(path, prompt=None)
    (tmp_path / "metadata.csv").write_bytes(f"file_name,prompt\ncafe.png,{CAPTION}\n".encode(encoding))
    with pytest.raises(UserError, match=r"metadata\.csv is not UTF-8"):
        read_metadata(tmp_path / "metadata.csv")


def test_a_long_text_may_be_cut_inside_a_character():
    content = ("é" * 50_000).encode()
    assert decode_text(content[:80_001], "x", whole=False) == "é" * 40_000
    with pytest.raises(UserError):
        decode_text(content[:80_001], "x")


@pytest.mark.parametrize(
    ("text", "encoding", "read_as"),
    [
        ("ein Schäfchen", "utf-8", "ein Schäfchen"),
        ("ein Schäfchen", "latin-1", "ein Schäfchen"),
        ("the farmer\u2019s sheep \u2013 white", "cp1252", "the farmer\u2019s sheep \u2013 white"),
        ("羊のいる牧場", "shift-jis", None),
        ("绵羊在草地上", "gb2312", None),
        ("Овца на лугу", "cp1251", None),
        ("owca na łące", "cp1250", None),
    ],
)
def test_an_undeclared_text_is_read_where_it_reads_like_words(text, encoding, read_as):
    assert undeclared_text(text.encode(encoding)) == read_as


def test_halves_of_an_emoji_are_joined_and_a_lone_half_is_said():
    assert one_line("a sheep \ud83d\udc11\n  here") == "a sheep \U0001f411 here"
    with pytest.raises(UserError, match="half a character"):
        one_line("caf\udce9")


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_accents_in_either_form_name_the_same_file(stored, typed, tmp_path):
    folder = tmp_path / unicodedata.normalize(stored, "Wölfe")
    folder.mkdir()
    on = saved(gradient(32, 32), folder / unicodedata.normalize(stored, "café.png"))
    name = unicodedata.normalize(typed, "café.png")
    path = tmp_path / unicodedata.normalize(typed, "Wölfe") / name
    assert read(path).path == on == on_disk(path)
    (row,), _ = find_pictures([path.with_name(unicodedata.normalize(typed, "caf\u00e9*.png"))])
    assert row.path == on
    table = folder / "metadata.jsonl"
    table.write_text(json.dumps({"file_name": name, "prompt": "a café"}), encoding="utf-8")
    (row,), _ = find_pictures([folder])
    assert (row.path, row.prompt) == (on, "a café")
    assert list(unique_names([on]).values()) == ["café"]


def test_the_home_folder_is_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    saved(gradient(32, 32), tmp_path / "sheep.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "sheep.png", "prompt": "home"}')
    for wanted in ("~/sheep.png", "~", "~/*.png", "~/metadata.jsonl"):
        (row,), _ = find_pictures([wanted])
        assert row.path == tmp_path / "sheep.png" and row.prompt == "home"
    assert read("~/sheep.png").path == tmp_path / "sheep.png"


def test_names_are_unique_and_never_a_folder_of_the_run():
    paths = [Path(p) for p in ("a/sheep.png", "b/sheep.jpg", "b/Sheep.webp", "checkpoints.png", "a/.. .png")]
    names = list(unique_names(paths).values())
    assert names[:4] == ["sheep", "sheep-2", "Sheep-3", "checkpoints-2"]
    assert len({name.casefold() for name in names}) == 5 and all(name.strip(".") for name in names)


def test_names_fit_every_file_system():
    paths = [Path("con.png"), Path("羊" * 90 + ".png"), Path(os.fsdecode(b"caf\xe9.png"))]
    names = list(unique_names(paths).values())
    assert names[0] == "con_" and len(names[1].encode()) <= 180 and names[2] == "caf_"
