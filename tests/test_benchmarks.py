"""Readers of benchmarks on small look-alikes that are drawn here, whole and broken ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nulltext.benchmark_tasks import PIE_SIDE, decode_runs, encode_runs, read_mask, read_picture
from nulltext.benchmarks import read_benchmark, read_imagefolder, read_parquet, read_pie_bench
from nulltext.errors import UserError


def save_picture(path, side=PIE_SIDE, colour=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def pie_entry(path, **changes):
    entry = {
        "image_path": path,
        "original_prompt": "a [white] sheep on a meadow",
        "editing_prompt": "a [black] sheep on a  meadow",
        "editing_instruction": "make it black",
        "editing_type_id": "6",
        "blended_word": "sheep sheep",
        "mask": [PIE_SIDE * 100 + 100, 50],
    }
    return {**entry, **changes}


@pytest.fixture
def pie(tmp_path):
    """Write a PIE-Bench look-alike with the entries given; pictures that are named are drawn."""

    def write(entries, text=None):
        for entry in entries.values():
            if isinstance(entry, dict) and "missing" not in entry.get("image_path", "missing"):
                save_picture(tmp_path / "annotation_images" / entry["image_path"])
        (tmp_path / "mapping_file.json").write_text(text or json.dumps(entries))
        return tmp_path

    return write


def test_an_entry_of_pie_bench(pie):
    benchmark = read_pie_bench(pie({"000": pie_entry("6_change_attribute_color_40/000.jpg")}))
    (task,) = benchmark.tasks
    assert (task.prompt, task.target_prompt) == ("a white sheep on a meadow", "a black sheep on a meadow")
    assert task.edit_type == "6_change_attribute_color" and task.blend == ("sheep", "sheep")
    assert benchmark.problems == []


def test_run_length_masks_and_their_forced_border():
    mask = decode_runs([PIE_SIDE * 100 + 100, 50, PIE_SIDE * PIE_SIDE - PIE_SIDE - 10, 10**9])
    expected = torch.zeros(PIE_SIDE, PIE_SIDE)
    expected[100, 100:150] = 1
    expected[-2, -10:] = 1  # the second run reaches over the end and is cut there
    expected[[0, -1], :] = 1
    expected[:, [0, -1]] = 1
    assert torch.equal(mask[0], expected)
    assert decode_runs([]).sum() == 4 * PIE_SIDE - 4  # nothing edited still has its border


def test_runs_there_and_back():
    mask = (torch.rand(1, PIE_SIDE, PIE_SIDE, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    mask[:, [0, -1], :] = 1
    mask[:, :, [0, -1]] = 1
    assert torch.equal(decode_runs(encode_runs(mask)), mask)
    assert encode_runs(torch.zeros(1, 4, 4)) == []


def test_a_mask_at_the_models_size_keeps_what_is_half_edited(pie):
    runs = [
        n for row in range(64, 128) for n in (row * PIE_SIDE + 64, 63)
    ]  # an 8 x 8 block, one column short
    (task,) = read_pie_bench(pie({"0": pie_entry("6_x/0.png", mask=runs)})).tasks
    mask = read_mask(task, 64)
    expected = torch.zeros(1, 64, 64)
    expected[:, 8:16, 8:16] = 1  # the border of one pixel is an eighth of a cell, and goes
    assert torch.equal(mask, expected)


def test_what_is_wrong_is_named_counted_and_skipped(pie):
    entries = {
        "good": pie_entry("a/good.png"),
        "gone": pie_entry("a/missing.png"),
        "odd": pie_entry("a/odd.png", mask=[1, 2, 3]),
        "text": pie_entry("a/text.png", mask=["1", 2]),
        "beyond": pie_entry("a/beyond.png", mask=[PIE_SIDE**2, 1]),
        "nolist": pie_entry("a/nolist.png", mask="full"),
        "type": pie_entry("a/type.png", editing_type_id="12"),
        "empty": {"image_path": "a/good.png"},
        "number": 7,
        "same": pie_entry("a/good.png"),
        "other": pie_entry("a/good.png", editing_prompt="a black cow"),
        "blend": pie_entry("a/blend.png", blended_word="one two three"),
    }
    benchmark = read_pie_bench(pie(entries))
    assert [t.name for t in benchmark.tasks] == ["good", "other", "blend"]
    said = {p.split(":")[0]: p for p in benchmark.problems}
    assert len(said) == len(benchmark.problems) == 10
    expected = {
        "gone": "no picture",
        "odd": "pairs",
        "text": "whole numbers",
        "beyond": "262144",
        "nolist": "not a list",
        "type": "'12'",
        "empty": "original_prompt, editing_prompt",
        "number": "not an object",
        "same": "the same picture and edit as good",
        "blend": "kept, without a blend",
    }
    for name, words in expected.items():
        assert words in said[name], said[name]
    assert benchmark.tasks[2].blend is None


def test_a_key_that_stands_twice_is_not_overwritten_unseen(pie):
    first, second = pie_entry("a/1.png"), pie_entry("a/2.png", editing_prompt="b")
    text = f'{{"x": {json.dumps(first)}, "x": {json.dumps(second)}}}'
    benchmark = read_pie_bench(pie({"1": first, "2": second}, text))
    assert benchmark.tasks[0].target_prompt == "a black sheep on a meadow"
    assert "twice" in benchmark.problems[0]


@pytest.mark.parametrize(
    ("entries", "text", "words"),
    [
        ({}, "{", "JSON"),
        ({}, "[]", "not a mapping"),
        ({}, "{}", "no usable entry"),
        ({"gone": pie_entry("missing.png")}, None, "1 skipped"),
    ],
)
def test_a_benchmark_of_nothing_is_refused_in_one_line(pie, entries, text, words):
    with pytest.raises(UserError, match=words) as raised:
        read_pie_bench(pie(entries, text))
    assert "\n" not in str(raised.value)


def test_no_folder_and_no_mapping_file(tmp_path):
    with pytest.raises(UserError, match=r"--data\.folder"):
        read_benchmark("pie_bench", tmp_path / "none")
    with pytest.raises(UserError, match=r"mapping_file\.json"):
        read_benchmark("pie_bench", tmp_path)


def test_the_second_list_of_pie_bench_without_types_and_masks(pie):
    folder = pie(
        {"a": {k: v for k, v in pie_entry("x/a.png").items() if k not in ("editing_type_id", "mask")}}
    )
    (folder / "mapping_file.json").rename(folder / "mapping_file_ti2i_benchmark.json")
    (task,) = read_benchmark("pie_bench", folder, "mapping_file_ti2i_benchmark.json").tasks
    assert task.edit_type == "unspecified" and read_mask(task, 64) is None


def test_a_limit_is_dealt_over_the_edit_types_and_grows_at_its_end(pie):
    entries = {f"{k}{i}": pie_entry(f"f/{k}{i}.png", editing_type_id=k) for k in "149" for i in range(3)}
    benchmark = read_pie_bench(pie(entries))
    assert [t.name for t in benchmark.limited(4)] == ["10", "40", "90", "11"]
    assert benchmark.limited(7)[:4] == benchmark.limited(4)
    assert len(benchmark.limited(None)) == 9
    assert [t.name for t in benchmark.limited(None, ["9_change_style"])] == ["90", "91", "92"]
    with pytest.raises(UserError, match=r"1 or more"):
        benchmark.limited(0)
    with pytest.raises(UserError, match=r"9_change_style"):
        benchmark.limited(None, ["style"])


def test_pictures_are_cut_square_and_averaged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    large = pixels.repeat(4, 0).repeat(4, 1)
    wide = np.concatenate([np.zeros((32, 6, 3), np.uint8), large, np.zeros((32, 6, 3), np.uint8)], axis=1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert torch.equal(read_picture(tmp_path / "wide.png", 8), expected)
    assert read_picture(tmp_path / "wide.png", 12).shape == (3, 12, 12)


def test_a_broken_picture_is_a_value_error_with_its_name(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"torn\.png"):
        read_picture(tmp_path / "torn.png", 8)


# ------------------------------------------------------------------------------------------------ imagefolder


def test_imagefolder_in_json_lines_and_in_csv(tmp_path):
    for name in ("a.png", "mask.png", "after.png"):
        save_picture(tmp_path / name, 64)
    row = {"file_name": "a.png", "prompt": "a sheep", "target_prompt": "an elk", "blend_word": "sheep elk"}
    extra = {"mask_file_name": "mask.png", "target_file_name": "after.png", "edit_type": "animal"}
    lines = [
        json.dumps(row | extra),
        "{torn",
        json.dumps({"file_name": "no.png"} | {**row, "file_name": "no.png"}),
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    benchmark = read_imagefolder(tmp_path)
    (task,) = benchmark.tasks
    assert task.blend == ("sheep", "elk") and task.edit_type == "animal"
    assert read_mask(task, 16).sum() == 0  # (200, 100, 50) is darker than half
    assert len(benchmark.problems) == 2 and "no.png" in benchmark.problems[1]
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text(
        'file_name,prompt,target_prompt,blend_word\na.png,"a, b",c,sheep\n'
    )
    (task,) = read_imagefolder(tmp_path).tasks
    assert task.prompt == "a, b" and task.blend == ("sheep", "sheep") and task.mask_image is None


def test_imagefolder_without_metadata_is_refused(tmp_path):
    with pytest.raises(UserError, match="metadata"):
        read_imagefolder(tmp_path)


# ------------------------------------------------------------------------------------------------ parquet


def test_parquet_of_imagenhub(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    save_picture(tmp_path / "a.png", 16)
    picture = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    rows = {
        "img_id": ["7", "8", "9"],
        "source_img": [picture, picture, None],
        "mask_img": [picture, None, None],
        "source_global_caption": ["a sheep", "", "a dog"],
        "target_global_caption": ["an elk", "an elk", "an elk"],
        "target_img": [picture, picture, picture],
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "dev.parquet")
    benchmark = read_parquet(tmp_path)
    (task,) = benchmark.tasks
    assert task.name == "7_dev_00000" and task.prompt == "a sheep"
    assert read_picture(task.image, 8).shape == (3, 8, 8) and read_mask(task, 8).shape == (1, 8, 8)
    assert len(benchmark.problems) == 2
    swapped = read_parquet(
        tmp_path, {"prompt": "target_global_caption", "target_prompt": "source_global_caption"}
    )
    assert swapped.tasks[0].prompt == "an elk"
    with pytest.raises(UserError, match=r"--data\.columns\.prompt"):
        read_parquet(tmp_path, {"prompt": "nothing"})


def test_parquet_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        read_parquet(tmp_path)


# -------------------------------------------------------------------------------- the farmyard's own


def test_the_farmyard_benchmark_has_pie_benchs_types_and_every_edit_shows():
    from nulltext.farmyard.recipe.benchmark import EDIT_TYPES, scene_edits
    from nulltext.farmyard.world import caption, changed_pixels

    edits = scene_edits()
    assert len(edits) == 140 and [name[0] for name, _, _ in EDIT_TYPES] == list("0123456789")
    assert edits == scene_edits()
    for name, edit in edits:
        words = edit.blended_word.split()
        assert caption(edit.before) != caption(edit.after), name
        assert changed_pixels(edit.before, edit.after).any(), name
        if words:
            assert words[0] in caption(edit.before).split() and words[1] in caption(edit.after).split(), name


def test_the_farmyard_benchmark_is_read_back_as_pie_bench(tmp_path, monkeypatch):
    from nulltext.farmyard.recipe import benchmark as farm
    from nulltext.farmyard.world import caption

    edits = farm.scene_edits()
    few = [edits[28], edits[44], edits[60]]
    monkeypatch.setattr(farm, "scene_edits", lambda world: few)
    folder = farm.write_farmyard_benchmark(tmp_path / "farm")
    benchmark = read_pie_bench(folder)
    assert benchmark.problems == []
    assert [t.edit_type for t in benchmark.tasks] == [kind for kind, _ in few]
    for task, (_, edit) in zip(benchmark.tasks, few, strict=True):
        assert (task.prompt, task.target_prompt) == (caption(edit.before), caption(edit.after))
        before, after = read_picture(task.image, 64), read_picture(task.counterfactual, 64)
        mask = read_mask(task, 64)
        outside = (before - after).abs() * (1 - mask)
        assert outside.max() <= 4 / 255 + 1e-6  # what `changed_pixels` calls unchanged
        assert 0 < mask.mean() < 1
    stamp = (folder / "mapping_file.json").stat().st_mtime_ns
    farm.write_farmyard_benchmark(folder)
    assert (folder / "mapping_file.json").stat().st_mtime_ns == stamp  # not drawn again
