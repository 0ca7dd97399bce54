"""Readers of benchmarks on small look-alikes that are drawn here, whole and broken ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from nulltext.errors import UserError
from nulltext.evaluation import DataOptions, open_benchmark
from nulltext.evaluation.benchmarks import base, detect
from nulltext.evaluation.benchmarks.base import read_mask
from nulltext.evaluation.benchmarks.folders import read_imagefolder, read_parquet
from nulltext.evaluation.benchmarks.pie_bench import read_pie_bench
from nulltext.evaluation.benchmarks.run_length import PIE_SIDE, decode_runs, encode_runs
from nulltext.pixels import as_saved


def read_picture(stored, size):
    """The picture in [0, 1]."""
    return as_saved(base.read_picture(stored, size)[0])


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
        "blend": "used without a blend",
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
        open_benchmark(DataOptions())
    with pytest.raises(UserError, match=r"none.*--data\.folder"):
        open_benchmark(DataOptions("pie_bench", tmp_path / "none"))
    with pytest.raises(UserError, match=r"mapping_file\.json"):
        open_benchmark(DataOptions("pie_bench", tmp_path))


def test_the_second_list_of_pie_bench_without_types_and_masks(pie):
    folder = pie(
        {"a": {k: v for k, v in pie_entry("x/a.png").items() if k not in ("editing_type_id", "mask")}}
    )
    (folder / "mapping_file.json").rename(folder / "mapping_file_ti2i_benchmark.json")
    data = DataOptions(folder=folder, mapping="mapping_file_ti2i_benchmark.json")
    (task,) = open_benchmark(data).tasks
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


def test_a_broken_picture_is_an_error_with_its_name(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match=r"torn\.png"):
        read_picture(tmp_path / "torn.png", 8)


# ------------------------------------------------------------------------------------------------ imagefolder


def test_imagefolder_in_json_lines_and_in_csv(tmp_path):
    for name in ("a.png", "after.png"):
        save_picture(tmp_path / name, 64)
    mask = np.full((64, 64), 120, np.uint8)  # darker than half: not edited
    mask[16:32, 16:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
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
    expected = torch.zeros(1, 16, 16)
    expected[:, 4:8, 4:8] = 1
    _, placement = base.read_picture(task.image, 16)
    assert torch.equal(read_mask(task, 16, placement), expected)
    assert task.truth == tmp_path / "after.png"
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


def test_a_row_without_a_target_prompt_is_scored_by_its_reconstruction(tmp_path):
    save_picture(tmp_path / "a.png", 64)
    (tmp_path / "metadata.csv").write_text("file_name,prompt\na.png,a sheep\n")
    (task,) = read_imagefolder(tmp_path).tasks
    assert task.prompt == "a sheep" and task.target_prompt is None


def test_two_edits_of_one_picture_are_two_tasks(tmp_path):
    save_picture(tmp_path / "a.png", 64)
    rows = [
        {"file_name": "a.png", "prompt": "a sheep", "target_prompt": t} for t in ("an elk", "a cow", "an elk")
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    benchmark = read_imagefolder(tmp_path)
    assert [t.name for t in benchmark.tasks] == ["a", "a-2"]
    assert "same picture and edit" in benchmark.problems[0]


def test_a_mask_goes_the_way_of_its_picture(tmp_path):
    Image.new("RGB", (96, 64), (10, 200, 30)).save(tmp_path / "wide.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[:, :48] = 255  # the left half of the photo, of which the middle square shows a third
    Image.fromarray(mask).save(tmp_path / "mask.png")
    row = {"file_name": "wide.png", "prompt": "a", "target_prompt": "b", "mask_file_name": "mask.png"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    (task,) = read_imagefolder(tmp_path).tasks
    _, placement = base.read_picture(task.image, 32)
    expected = torch.zeros(1, 32, 32)
    expected[..., :16] = 1
    assert torch.equal(read_mask(task, 32, placement), expected)


# ------------------------------------------------------------------------------------------------ what a folder is


def kinds_of_folder(folder):
    """One folder of each form, by the form's name."""
    places = {name: folder / name for name in ("pie_bench", "imagefolder", "run_folder", "pictures")}
    save_picture(places["pie_bench"] / "annotation_images" / "a.png")
    (places["pie_bench"] / "mapping_file.json").write_text(json.dumps({"a": pie_entry("a.png")}))
    save_picture(places["imagefolder"] / "a.png", 64)
    row = {"file_name": "a.png", "prompt": "a sheep", "target_prompt": "an elk"}
    (places["imagefolder"] / "metadata.jsonl").write_text(json.dumps(row))
    save_picture(places["pictures"] / "deep" / "b.png", 64)
    (places["pictures"] / "deep" / "b.txt").write_text("a white sheep")
    save_picture(places["pictures"] / "dumb.png", 64, (1, 2, 3))
    save_picture(places["run_folder"] / "sheep" / "original.png", 64)
    write_inversion(places["run_folder"] / "sheep" / "inversion.safetensors")
    return places


def write_inversion(path):
    from nulltext.inversion.file import Inversion

    tensors = {"null_embeddings": torch.zeros(2, 3, 4), "noise": torch.zeros(4, 8, 8)}
    facts = {"prompt": "a white sheep", "guidance_scale": 7.5, "model": "farmyard", "fingerprint": "x"}
    Inversion(**tensors, **facts, scheduler={}, timesteps=[501, 1], size=(64, 64)).save(path)


def test_what_a_folder_is_is_found_by_looking_and_nothing_is_written_there(tmp_path):
    for kind, folder in kinds_of_folder(tmp_path).items():
        before = sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*"))
        assert detect(folder) == kind
        benchmark = open_benchmark(DataOptions(folder=folder))
        assert benchmark.name == kind and len(benchmark.tasks) == 1
        scored = benchmark.tasks[0].target_prompt
        assert (scored is None) == (kind in ("run_folder", "pictures")), kind
        assert read_picture(benchmark.tasks[0].image, 32).shape == (3, 32, 32)
        assert sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*")) == before
        assert open_benchmark(DataOptions("farmyard", folder)).name == kind  # whatever was drawn elsewhere


def test_pictures_without_a_caption_are_named(tmp_path):
    folder = kinds_of_folder(tmp_path)["pictures"]
    benchmark = open_benchmark(DataOptions(folder=folder))
    assert [(t.name, t.prompt) for t in benchmark.tasks] == [("deep_b", "a white sheep")]
    assert len(benchmark.problems) == 1 and benchmark.problems[0].startswith(
        "dumb: no caption; write what it shows into dumb.txt"
    )
    (folder / "deep" / "b.txt").unlink()
    with pytest.raises(UserError, match="2 skipped") as raised:
        open_benchmark(DataOptions(folder=folder))
    assert "\n" not in str(raised.value)


def test_a_folder_of_nothing_is_one_line_that_says_what_to_give(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"metadata\.jsonl.*caption.*--data\.folder") as raised:
        open_benchmark(DataOptions(folder=tmp_path))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="no folder"):
        open_benchmark(DataOptions(folder=tmp_path / "none"))
    with pytest.raises(UserError, match="'pie_bnch' is not one of auto, farmyard, pie_bench"):
        open_benchmark(DataOptions("pie_bnch", tmp_path))


def test_names_may_not_climb_out_of_pie_bench(pie):
    folder = pie(
        {"a": pie_entry("x/a.png"), "b": {**pie_entry("missing.png"), "image_path": "../missing.png"}}
    )
    benchmark = read_pie_bench(folder)
    assert [t.name for t in benchmark.tasks] == ["a"] and "leaves" in benchmark.problems[0]


# ------------------------------------------------------------------------------------------------ parquet


def test_parquet_of_imagenhub(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    save_picture(tmp_path / "a.png", 16)
    picture = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    save_picture(tmp_path / "mask.png", 16, (255, 255, 255))
    mask = {"bytes": (tmp_path / "mask.png").read_bytes(), "path": "mask.png"}
    rows = {
        "img_id": ["7", "8", "9"],
        "source_img": [picture, picture, None],
        "mask_img": [mask, None, None],
        "source_global_caption": ["a sheep", "", "a dog"],
        "target_global_caption": ["an elk", "an elk", "an elk"],
        "target_img": [picture, picture, picture],
    }
    parquet.write_table(pyarrow.table(rows), tmp_path / "dev.parquet")
    assert detect(tmp_path) == "parquet"
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
        before, after = read_picture(task.image, 128), read_picture(task.truth, 128)
        mask = read_mask(task, 128)
        outside = (before - after).abs() * (1 - mask)
        assert outside.max() <= 4 / 255 + 1e-6  # what `changed_pixels` calls unchanged
        assert 0 < mask.mean() < 1
    stamp = (folder / "mapping_file.json").stat().st_mtime_ns
    farm.write_farmyard_benchmark(folder)
    assert (folder / "mapping_file.json").stat().st_mtime_ns == stamp  # not drawn again
