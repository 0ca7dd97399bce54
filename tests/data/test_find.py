"""Files, folders, links, globs and tables, and what each finds."""

import json

import pytest
from drawn import gradient, saved

from nulltext.data.find import find_pictures
from nulltext.data.metadata import Row, read_metadata
from nulltext.errors import UserError


def farm(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
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


def test_a_folder_of_a_hub_cache_holds_links_and_its_table_finds_them(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    saved(gradient(32, 32), blobs / "1f3e", format="PNG")
    (blobs / "9a").write_text(
        '{"file_name": "train/sheep.png", "prompt": "a sheep", "mask_file_name": "m.png"}'
    )
    (snapshot / "train").mkdir()
    for name, blob in (("train/sheep.png", "1f3e"), ("m.png", "1f3e"), ("metadata.jsonl", "9a")):
        (snapshot / name).symlink_to(blobs / blob)
    rows, broken = find_pictures([snapshot])
    assert [(row.path, row.prompt) for row in rows] == [(snapshot / "train" / "sheep.png", "a sheep")]
    assert not broken and rows[0].mask_path == snapshot / "m.png"


def test_linked_folders_are_followed_each_once(tmp_path):
    folder = farm(tmp_path / "farm", 1)
    elsewhere = farm(tmp_path / "elsewhere", 2)
    (folder / "more").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    rows, broken = find_pictures([folder])
    assert [str(row.path.relative_to(folder)) for row in rows] == ["0.png", "again/0.png", "again/1.png"]
    assert not broken


def test_a_link_to_nothing_is_named(tmp_path):
    folder = farm(tmp_path / "farm", 1)
    (folder / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert [row.path.name for row in find_pictures([folder])[0]] == ["0.png", "gone.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    folder = farm(tmp_path / "farm", 1)
    (folder / "locked").mkdir()
    import os

    listed = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    rows, broken = find_pictures([folder])
    assert len(rows) == 1
    assert broken == [(str(folder / "locked"), "cannot be read: Permission denied; check its permissions")]


def test_metadata_rows_may_not_climb_out_of_their_folder(tmp_path):
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    saved(gradient(32, 32), tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (folder / "linked").symlink_to(tmp_path / "far" / "away")
    lines = [
        json.dumps({"file_name": "a.png", "prompt": "a", "target_prompt": "b", "blend_word": "c"}),
        json.dumps({"file_name": "../secret.png", "prompt": "x"}),
        json.dumps({"file_name": str(tmp_path / "secret.png"), "prompt": "x"}),
        json.dumps({"file_name": "..\\secret.png", "prompt": "x"}),
        json.dumps({"file_name": "a\0.png", "prompt": "x"}),
        json.dumps({"file_name": "a.png", "prompt": ["x"]}),
        json.dumps({"prompt": "x"}),
        json.dumps(["a.png"]),
        "{",
        json.dumps({"file_name": "C:\\pictures\\a.png", "prompt": "x"}),
        json.dumps({"file_name": "\ud800.png", "prompt": "half a character"}),
        json.dumps({"file_name": "a.png", "mask_file_name": "sub/../../secret.png"}),
        json.dumps({"file_name": "link.png", "prompt": "what a person linked in is theirs"}),
        json.dumps({"file_name": "linked/../b.png", "prompt": "dots are the name's, not the link's"}),
        json.dumps({"file_name": str(folder / "c.png"), "prompt": "a whole path to a file below"}),
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    rows, problems = read_metadata(folder / "metadata.jsonl")
    assert [(row.path, row.prompt, row.target_prompt, row.blend_word) for row in rows[:1]] == [
        (folder / "a.png", "a", "b", "c")
    ]
    assert [row.path for row in rows[1:]] == [folder / "link.png", folder / "b.png", folder / "c.png"]
    assert [place for place, _ in problems] == [f"metadata.jsonl:{n}" for n in range(2, 13)]
    assert sum("leaves the folder" in reason for _, reason in problems) == 6


def test_metadata_csv_equals_jsonl(tmp_path):
    (tmp_path / "metadata.csv").write_text('file_name,prompt,mask_file_name\na.png,"a, b",m.png\n')
    (row,), problems = read_metadata(tmp_path / "metadata.csv")
    assert row == Row(tmp_path / "a.png", "a, b", mask_path=tmp_path / "m.png") and not problems
    assert row.place == "metadata.csv:2"
    (tmp_path / "metadata.csv").write_text("name,prompt\na.png,x\n")
    with pytest.raises(UserError, match=r"no column file_name; .* names 'name, prompt'"):
        read_metadata(tmp_path / "metadata.csv")


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("first", ["", "sep={sign}\n", "\ufeff", "\n"])
def test_a_table_says_by_its_first_line_what_parts_its_columns(sign, first, tmp_path):
    rows = [
        ["File Name", "prompt", "target_prompt", "target_file_name"],
        ["sub\\a.png", '"a; b, c"', "d", "t.png"],
    ]
    text = first.format(sign=sign) + "".join(sign.join(row) + "\r\n" for row in rows)
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8", newline="")
    (tmp_path / "sub").mkdir()
    saved(gradient(32, 32), tmp_path / "sub" / "a.png")
    (row,), problems = find_pictures([tmp_path / "metadata.csv"])
    assert not problems
    assert row == Row(tmp_path / "sub" / "a.png", "a; b, c", "d", target_path=tmp_path / "t.png")


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_as_on_any_system(end, tmp_path):
    text = end.join(["file_name,prompt", "a.png,one", "b.png,two", ""])
    (tmp_path / "metadata.csv").write_text(text, newline="")
    rows, problems = read_metadata(tmp_path / "metadata.csv")
    assert [(row.path.name, row.prompt) for row in rows] == [
        ("a.png", "one"),
        ("b.png", "two"),
    ] and not problems
    for broken in ("x" * 200_000, 'sep="'):
        (tmp_path / "metadata.csv").write_text(broken + end, newline="")
        with pytest.raises(UserError, match="no column file_name"):
            read_metadata(tmp_path / "metadata.csv")
    (tmp_path / "metadata.csv").write_text(f'file_name,"{end}' + "x" * 200_000, newline="")
    assert read_metadata(tmp_path / "metadata.csv")[1][0][0].startswith("metadata.csv:")


def test_a_line_separator_inside_a_prompt_is_no_new_line(tmp_path):
    line = json.dumps({"file_name": "a.png", "prompt": "one\u2028two\x85three"}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(f"{line}\r\n{line}\r\n", encoding="utf-8", newline="")
    rows, problems = read_metadata(tmp_path / "metadata.jsonl")
    assert len(rows) == 2 and not problems


@pytest.mark.parametrize("name", ["[old] sheep", "sheep [1]", "a*b", "100% [x"])
def test_brackets_in_a_quoted_glob_are_found_as_they_are(name, tmp_path):
    folder = farm(tmp_path / name / "sub")
    saved(gradient(32, 32), folder / "photo [1].png")
    assert len(find_pictures([folder / "*.png"])[0]) == 4
    assert [row.path.name for row in find_pictures([folder / "photo [1].*"])[0]] == ["photo [1].png"]
    assert [row.path.name for row in find_pictures([folder / "[01].png"])[0]] == ["0.png", "1.png"]
    assert len(find_pictures([tmp_path / name / "**" / "*.png"])[0]) == 4
