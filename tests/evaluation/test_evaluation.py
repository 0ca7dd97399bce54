"""Benchmarks from end to end on a tiny random model: every method, restarts, tables, mistakes."""

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from nulltext.backbone import Backbone
from nulltext.benchmark_tasks import read_picture
from nulltext.cli import find_config, main
from nulltext.errors import UserError
from nulltext.evaluation import evaluate, gather_sources, load_backbone, open_benchmark
from nulltext.evaluation_figures import contact_sheet
from nulltext.evaluation_methods import OPTIMIZERS, Evaluator, as_saved
from nulltext.evaluation_results import Results, Row, Store, Summary, write_results
from nulltext.evaluation_settings import METHODS, DataSettings, ModelSettings, Settings
from nulltext.inversion import start_embedding
from nulltext.judge import Judge
from nulltext.pivot import ddim_invert

WAYS = ("reconstruction", "plain", "prompt_to_prompt", "default")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A PIE-Bench look-alike: three pictures, two of whose edits are of one picture, one without a mask."""
    place = tmp_path_factory.mktemp("pie")
    entries = {}
    for i, (kind, name, target, words) in enumerate(
        [
            ("1", "a", "a black cow", "sheep cow"),
            ("6", "b", "a black sheep", "sheep sheep"),
            ("6", "a", "a black sheep", ""),
            ("9", "c", "a drawing of a sheep", "sheep nothing"),
        ]
    ):
        path = place / "annotation_images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(ord(name))).mul(255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((512, 512), 0).save(path)
        entries[f"{i:012d}"] = {
            "image_path": f"{name}.png",
            "original_prompt": "a [white] sheep",
            "editing_prompt": target,
            "editing_type_id": kind,
            "blended_word": words,
            "mask": [0, 512 * 512]
            if i == 3
            else [n for row in range(128, 384) for n in (row * 512 + 128, 256)],
        }
    entries["broken"] = {**entries["000000000000"], "mask": [1]}
    (place / "mapping_file.json").write_text(json.dumps(entries))
    return place


@pytest.fixture(scope="module")
def backbone(tiny_sd):
    return Backbone.from_pretrained(str(tiny_sd))


def settings(folder, output, **changes):
    return Settings(
        model=ModelSettings(
            pretrained="tiny",
            steps=4,
            inner_steps=2,
            start=0.0,
            guidance_scale=2.0,
            fixed_point_iterations=0,
            tolerance=0.0,
        ),
        data=DataSettings("pie_bench", folder, limit=changes.pop("limit", None)),
        batch_size=2,
        output=output,
        **changes,
    )


@pytest.fixture(scope="module")
def finished(folder, backbone, tmp_path_factory):
    return evaluate(settings(folder, tmp_path_factory.mktemp("whole")), backbone, Judge())


def test_every_edit_has_every_method_and_way(finished):
    results, store = finished
    cells = {(row.picture, row.method, row.editing) for row in results.rows}
    assert len(cells) == len(results.rows) == 4 * len(METHODS) * len(WAYS)
    assert all(store.picture(p, f"{m}-{w}").is_file() for p, m, w in cells)
    assert any(p.startswith("broken:") for p in results.problems)
    assert any("'nothing'" in p for p in results.problems)  # a blend word that is not in the prompt


def test_the_scores_are_those_of_the_saved_pictures(finished):
    import numpy as np

    from nulltext.metrics import psnr

    results, store = finished
    row = next(r for r in results.rows if (r.method, r.editing) == ("ddim", "prompt_to_prompt"))
    source, output = (
        torch.from_numpy(np.array(Image.open(store.picture(row.picture, what)))).permute(2, 0, 1)[None] / 255
        for what in ("source", "ddim-prompt_to_prompt")
    )
    assert row.scores["psnr"] == pytest.approx(psnr(output, source).item(), abs=1e-4)


def test_a_full_mask_is_counted_as_nan_and_left_out_of_the_mean(finished):
    results, _ = finished
    summary = results.summary("ddim", "plain", "background_psnr")
    assert (summary.n, summary.nan) == (3, 1) and math.isfinite(summary.mean)


def test_methods_are_what_they_say(finished, backbone):
    results, store = finished
    picture = "000000000001"
    pixels = {m: Image.open(store.picture(picture, f"{m}-plain")).tobytes() for m in METHODS}
    assert pixels["direct"] == pixels["ddim"]  # nothing looks at the source branch
    assert len(set(pixels.values())) == 4
    source = read_picture(store.picture(picture, "source"), 32)[None]
    vae = as_saved(backbone.decode_latents(backbone.encode_image(source * 2 - 1)))
    away = {
        m: (read_picture(store.picture(picture, f"{m}-reconstruction"), 32)[None] - vae)
        .square()
        .mean()
        .item()
        for m in METHODS
    }
    assert away["direct"] < 1e-6 < away["generated"]  # one rounding of a batched forward at most
    seconds = {m: results.summary(m, "reconstruction", "unet_evaluations").mean for m in METHODS}
    steps, inner = 4, 2
    pivot = steps
    assert seconds["generated"] == 2 * steps
    assert seconds["direct"] == pivot
    assert seconds["ddim"] == seconds["negative_prompt"] == pivot + 2 * steps
    assert seconds["null_text"] == pivot + steps * (2 + 2 * inner)


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_the_null_texts_of_sdxl_lead_along_the_walk_they_were_learned_on(tiny_sdxl, tmp_path, start):
    """Also what rides along with them: SDXL's pooled embedding starts where the sequence does."""
    backbone = Backbone.from_pretrained(str(tiny_sdxl))
    model = ModelSettings(pretrained="tiny", steps=3, inner_steps=2, start=start, tolerance=0.0)
    evaluator = Evaluator(backbone, Judge(), Settings(model, output=tmp_path), Store(tmp_path, {}))
    cond = evaluator.embed(["a white sheep", "a black cow"])
    z_0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pivot = ddim_invert(backbone, evaluator.schedule, z_0, cond)
    null, walk = evaluator._learn(pivot, cond)
    with torch.no_grad():
        again = evaluator._walk(pivot[0], cond, null)
    torch.testing.assert_close(again, walk, rtol=1e-4, atol=1e-4)
    assert null[0].pooled.equal(start_embedding(backbone, cond, start).pooled)
    assert null[0].pooled.equal(cond.pooled) == (start == 1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_inner_steps_are_the_named_optimizers(backbone, tmp_path, name):
    model = ModelSettings(pretrained="tiny", steps=1, inner_steps=1, optimizer=name, tolerance=0.0)
    evaluator = Evaluator(backbone, Judge(), Settings(model, output=tmp_path), Store(tmp_path, {}))
    cond = evaluator.embed(["a white sheep"])
    z_0 = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    null, _ = evaluator._learn(ddim_invert(backbone, evaluator.schedule, z_0, cond), cond)
    step = null[0].sequence - cond.sequence  # it starts at the source prompt
    if name == "adam":
        assert 0 < step.abs().max() < 0.01001  # no entry goes further
    else:
        assert step.square().mean().sqrt() == pytest.approx(0.002, rel=1e-3)
        assert step.abs().max() > 0.004


def test_the_source_prompt_as_target_is_the_reconstruction(backbone, folder, tmp_path):
    from dataclasses import replace

    chosen = settings(folder, tmp_path, editing=("plain",))
    evaluator = Evaluator(backbone, Judge(), chosen, Store(tmp_path, {}))
    task = open_benchmark(chosen.data, tmp_path).tasks[0]
    (source,) = gather_sources([replace(task, target_prompt=task.prompt)], evaluator.size, [])
    evaluator.run([source])
    for method in METHODS:
        if method != "direct":
            names = (f"{method}-reconstruction", f"{method}-plain")
            a, b = (Image.open(evaluator.store.picture(task.name, n)).tobytes() for n in names)
            assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1, method


def test_a_killed_benchmark_continues_and_ends_with_the_same_table(finished, folder, backbone, tmp_path):
    """A second start takes up the records, and with them what was said of their edits."""
    whole, _ = finished
    chosen = settings(folder, tmp_path)

    class Killed(Exception):
        pass

    def stop_in_the_second_batch(done, total, doing):
        if done and doing == "null_text plain":
            raise Killed

    with pytest.raises(Killed):
        evaluate(chosen, backbone, Judge(), stop_in_the_second_batch)
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "pictures").glob("*.json")}
    assert 0 < len(first) < 4
    seen = []
    results, _ = evaluate(chosen, backbone, Judge(), lambda *said: seen.append(said))
    assert list(dict.fromkeys(said[:2] for said in seen)) == [(len(first), 4), (4, 4)]
    assert (seen[0][2], seen[-1][2]) == ("pivot", "done")
    assert [doing for *_, doing in seen if "timestep" in doing] == [
        f"null_text, timestep {i} of 4" for i in (1, 2, 3, 4)
    ]
    assert {p: p.stat().st_mtime_ns for p in first} == first  # not done again
    assert as_text(results.rows) == as_text(whole.rows)
    assert results.problems == whole.problems and len(results.problems) > 1  # those of the first batch, too


def as_text(rows):
    """All of some rows but the seconds, to the last digit; NaN equals NaN so."""
    return [json.dumps({**asdict(row), "seconds": None}) for row in rows]


def test_another_choice_is_refused_by_name(finished, folder, backbone):
    _, store = finished
    with pytest.raises(UserError, match=r"seed 1234, not 7;.*--output"):
        evaluate(settings(folder, store.folder, seed=7), backbone, Judge())


def test_a_size_that_the_model_cannot_make_is_refused(tiny_sd):
    with pytest.raises(UserError, match="size is 31; give a multiple of 2, such as 32"):
        load_backbone(ModelSettings(pretrained=str(tiny_sd), size=31))


def test_a_damaged_record_is_done_again(folder, backbone, tmp_path):
    chosen = settings(folder, tmp_path, limit=1, methods=("ddim",), editing=("plain",))
    evaluate(chosen, backbone, Judge())
    (record,) = (tmp_path / "pictures").glob("*.json")
    record.write_text("{")
    results, store = evaluate(chosen, backbone, Judge())
    assert store.record(record.stem).rows == results.rows


# ------------------------------------------------------------------------------------------------ tables


def rows_of(values, method="ddim", editing="plain", metric="ssim"):
    return [Row(f"p{i}", "6_color", method, editing, 1.5, 10, {metric: v}) for i, v in enumerate(values)]


def test_mean_deviation_and_nans():
    summary = Summary.of([1.0, 3.0, math.nan])
    assert (summary.mean, summary.std, summary.n, summary.nan) == (2, pytest.approx(math.sqrt(2)), 2, 1)
    assert math.isnan(Summary.of([math.nan]).mean) and math.isnan(Summary.of([1.0]).std)


def test_tables_say_mean_deviation_nans_reasons_and_choices(tmp_path):
    rows = rows_of([0.25, 0.75, math.nan]) + rows_of([1.0, 1.0, 1.0], method="null_text")
    results = Results(
        rows, {"benchmark": "made up", "seed": 3}, {"clip_whole": "no CLIP"}, ["p9: torn; skipped"]
    )
    write_results(results, tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| SSIM | 0.5000 ± 0.3536 (1 NaN) | 1.0000 ± 0.0000 |" in text
    assert "`clip_whole`: no CLIP" in text and "p9: torn" in text and "- seed: 3" in text
    document = json.loads((tmp_path / "results.json").read_text())
    cell = document["summary"]["6_color"]["ddim plain"]["ssim"]
    assert cell == {"mean": 0.5, "std": pytest.approx(0.35355, abs=1e-5), "n": 2, "nan": 1}
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(lines) == 6 and lines[2]["ssim"] == "nan" and lines[0]["seconds"] == "1.5"


def test_a_contact_sheet_has_a_column_a_method_and_a_row_a_way(finished):
    results, store = finished
    rows = [row for row in results.rows if row.edit_type == "6_change_attribute_color"]
    sheet = contact_sheet(store, rows, tile=32)
    assert sheet.size == (100 + (1 + len(METHODS)) * 34, 14 + 2 * (len(WAYS) * 34 + 8))
    column, row = METHODS.index("null_text"), WAYS.index("default")
    for y, name in enumerate(dict.fromkeys(row.picture for row in rows)):
        corner = (100 + (1 + column) * 34, 14 + y * (len(WAYS) * 34 + 8) + row * 34)
        tile = sheet.crop((*corner, corner[0] + 32, corner[1] + 32))
        with Image.open(store.picture(name, "null_text-default")) as picture:
            assert tile.tobytes() == picture.tobytes()


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_writes_tables_sheets_boxes_and_events(folder, tiny_sd, tmp_path, capsys):
    words = [
        "--model.pretrained",
        str(tiny_sd),
        "--model.steps=2",
        "--data.benchmark=pie_bench",
        "--data.limit=2",
    ]
    words += [
        "--data.folder",
        str(folder),
        "--metrics.clip=null",
        "--methods",
        "ddim,direct",
        "--editing",
        "plain",
    ]
    code = main(["test", *words, f"--output={tmp_path / 'run'}"])
    out = capsys.readouterr().out
    assert code == 1  # an entry was skipped
    assert "problem: broken" in out and "left out: clip_whole: no CLIP model was named" in out
    run = tmp_path / "run"
    for name in ("results.csv", "results.json", "results.md", "sheets/1_change_object.png"):
        assert (run / name).is_file(), name
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    pytest.importorskip("matplotlib")
    assert (run / "boxes" / "all.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.benchmark=pie_bench"], "--data.folder"),
        (["--data.benchmark=pie_bench", "--data.folder=/no/where"], "/no/where"),
        (["--methods=ddim,edict"], "edict"),
        (["--data.limit=many"], "data.limit"),
        (["--model.stepps=3"], "model.steps"),
        (["--model.pretrained=/no/model"], "/no/model"),
        (["--model.device=abacus"], "abacus"),
        (["--batch_size=0"], "batch_size"),
        (["--config=nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words, said, tmp_path, capsys):
    assert main(["test", *words, f"--output={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1, err


def test_the_published_settings_stand_in_their_config():
    chosen = yaml.safe_load(find_config("pie_bench").read_text())
    assert chosen["edit"] == {
        "cross_steps": 0.4,
        "self_steps": 0.6,
        "equalizer": 2.0,
        "blend": True,
        "threshold": 0.3,
        "max_pool": 3,
    }
    assert (
        chosen["model"]["steps"] == 50 and chosen["model"]["guidance_scale"] == 7.5 and chosen["seed"] == 1234
    )


@pytest.mark.parametrize("name", ["benchmark", "pie_bench"])
def test_every_config_is_read_by_the_command(name, monkeypatch):
    import nulltext.evaluation_command as command

    seen = []
    monkeypatch.setattr(
        command, "evaluate", lambda chosen, **_: seen.append(chosen) or (_ for _ in ()).throw(UserError("x"))
    )
    assert main(["test", "--config", name]) == 2
    for section, wanted in yaml.safe_load(find_config(name).read_text()).items():
        found = getattr(seen[0], section)
        if isinstance(wanted, dict):
            found = {option: getattr(found, option) for option in wanted}
        assert found in (wanted, tuple(wanted) if isinstance(wanted, list) else Path(str(wanted))), section
