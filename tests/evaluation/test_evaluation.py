"""Benchmarks from end to end on a tiny random model: every method, restarts, tables, mistakes."""

import csv
import json
import math
import re
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from PIL import Image
from torch.optim import Adam

from nulltext.diffusion import trajectory
from nulltext.errors import UserError
from nulltext.evaluation import (
    COMPARED,
    DataOptions,
    Settings,
    build_methods,
    evaluate,
    markdown,
    open_benchmark,
    write_figures,
    write_results,
)
from nulltext.evaluation.benchmarks.base import gather_sources, read_picture
from nulltext.evaluation.progress import Progress
from nulltext.evaluation.report.figures import contact_sheet
from nulltext.evaluation.results import Evaluations, Results, Row, Store, Summary
from nulltext.evaluation.runner import Runner
from nulltext.inversion import NullText
from nulltext.inversion.base import guided_denoiser
from nulltext.inversion.invert import run
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.metrics import METRICS as ALL_METRICS
from nulltext.metrics import MetricOptions, load_metrics, psnr
from nulltext.models import DiffusionModel
from nulltext.pixels import as_saved

METHODS = ("generated", "ddim", "null_text", "negative_prompt", "direct")
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
def model(tiny_sd):
    return DiffusionModel.from_pretrained(str(tiny_sd))


@pytest.fixture(scope="module")
def suite():
    return load_metrics(MetricOptions(clip=None))


SHARED = {
    "steps": 4,
    "inner_steps": 2,
    "start": 0.0,
    "guidance_scale": 2.0,
    "fixed_point_iterations": 0,
    "tolerance": 0.0,
    "optimizer": NormalisedGradient,
    "keep_best": False,
    "shortest_step": 0.0,
    "last_factor": 1,
}


def settings(folder, output, names=METHODS, shared=SHARED, **changes):
    return Settings(
        methods=build_methods(names, shared),
        data=DataOptions("pie_bench", folder, limit=changes.pop("limit", None)),
        batch_size=2,
        output=output,
        **changes,
    )


@pytest.fixture(scope="module")
def finished(folder, model, suite, tmp_path_factory):
    return evaluate(settings(folder, tmp_path_factory.mktemp("whole")), model, suite)


def test_every_edit_has_every_method_and_way(finished):
    results, store = finished
    cells = {(row.picture, row.method, row.editing) for row in results.rows}
    assert len(cells) == len(results.rows) == 4 * len(METHODS) * len(WAYS)
    assert all(store.picture(p, f"{m}-{w}").is_file() for p, m, w in cells)
    assert any(p.startswith("broken:") for p in results.problems)
    assert any("'nothing'" in p for p in results.problems)  # a blend word that is not in the prompt


def test_the_scores_are_those_of_the_saved_pictures(finished):
    import numpy as np

    results, store = finished
    row = next(r for r in results.rows if (r.method, r.editing) == ("ddim", "prompt_to_prompt"))
    source, output = (
        torch.from_numpy(np.array(Image.open(store.picture(row.picture, what)))).permute(2, 0, 1)[None] / 255
        for what in ("source", "ddim-prompt_to_prompt")
    )
    assert row.scores["psnr"] == pytest.approx(psnr(output, source).item(), abs=1e-4)


def test_a_full_mask_is_counted_as_nan_and_left_out_of_the_mean(finished):
    results, _ = finished
    summary = results.summary("ddim", "plain", ALL_METRICS["background_psnr"]())
    assert (summary.n, summary.nan) == (3, 1) and math.isfinite(summary.mean)


def test_methods_are_what_they_say(finished, model):
    results, store = finished
    picture = "000000000001"
    pixels = {m: Image.open(store.picture(picture, f"{m}-plain")).tobytes() for m in METHODS}
    assert pixels["direct"] == pixels["ddim"]  # nothing looks at the source branch
    assert len(set(pixels.values())) == 4
    source = read_picture(store.picture(picture, "source"), 32)[0][None]
    vae = as_saved(model.decode(model.encode(source)))
    away = {
        m: (as_saved(read_picture(store.picture(picture, f"{m}-reconstruction"), 32)[0])[None] - vae)
        .square()
        .mean()
        .item()
        for m in METHODS
    }
    assert away["direct"] < 1e-6 < away["generated"]  # one rounding of a batched forward at most
    costs = {
        (m, way): next(iter(results.by_picture(m, way, Evaluations()).values()))
        for m in METHODS
        for way in ("reconstruction", "plain")
    }
    steps, inner, pivot = 4, 2, 4
    reconstruction = {m: costs[m, "reconstruction"] for m in METHODS}
    assert reconstruction["generated"] == 2 * steps
    assert reconstruction["direct"] == pivot
    assert reconstruction["ddim"] == pivot + 2 * steps
    assert reconstruction["negative_prompt"] == pivot + steps  # null text and prompt are one
    assert reconstruction["null_text"] == pivot + steps * (2 + 2 * inner)
    assert costs["generated", "plain"] == 2 * steps  # a plain edit needs no trajectory of the source
    assert costs["ddim", "plain"] == costs["direct", "plain"] == pivot + 2 * steps
    assert costs["null_text", "plain"] == reconstruction["null_text"] + 2 * steps


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_the_null_texts_of_sdxl_lead_along_the_trajectory_they_were_learned_on(tiny_sdxl, start):
    """Also what rides along with them: SDXL's pooled embedding starts where the sequence does."""
    model = DiffusionModel.from_pretrained(str(tiny_sdxl))
    method = NullText(steps=3, inner_steps=2, start=start, tolerance=0.0)
    cond = model.embed(["a white sheep", "a black cow"], (32, 32))
    z_0 = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    state = method.begin(model, z_0, cond)
    replay = run(method, model, state)
    denoise = guided_denoiser(model, state.schedule, cond, replay.null_texts, method.guidance_scale)
    with torch.no_grad():
        again = trajectory(denoise, state.schedule, state.pivot[0])
    torch.testing.assert_close(again, replay.trajectory, rtol=1e-4, atol=1e-4)
    pooled = replay.null_texts[0].extras["pooled"]
    assert pooled.equal(method.null_text(model, cond, (32, 32)).extras["pooled"])
    assert pooled.equal(cond.extras["pooled"]) == (start == 1)


@pytest.mark.parametrize("name", ["adam", "normalised_gradient"])
def test_the_inner_steps_are_the_given_optimizers(model, name):
    optimizer = partial(Adam, lr=0.01) if name == "adam" else NormalisedGradient
    shared = {**SHARED, "steps": 1, "inner_steps": 1, "start": 1.0, "unheard_of": 7, "optimizer": optimizer}
    (method,) = build_methods(["null_text"], shared).values()
    cond = model.embed(["a white sheep"])
    z_0 = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    state = method.begin(model, z_0, cond)
    step = run(method, model, state).null_texts[0].sequence - cond.sequence  # it starts at the source prompt
    if name == "adam":
        assert 0 < step.abs().max() < 0.01001  # no entry goes further
    else:
        assert step.square().mean().sqrt() == pytest.approx(0.002, rel=1e-3)
        assert step.abs().max() > 0.004


def test_the_source_prompt_as_target_is_the_reconstruction(model, suite, folder, tmp_path):
    chosen = settings(folder, tmp_path, editing=("plain",))
    runner = Runner(model, suite, chosen, Store(tmp_path, {}), 32)
    task = open_benchmark(chosen.data).tasks[0]
    (source,) = gather_sources([replace(task, target_prompt=task.prompt)], runner.side, [])
    runner.run([source])
    for method in METHODS:
        if method != "direct":
            names = (f"{method}-reconstruction", f"{method}-plain")
            a, b = (Image.open(runner.store.picture(task.name, n)).tobytes() for n in names)
            assert max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 1, method


def test_a_killed_benchmark_continues_and_ends_with_the_same_table(finished, folder, model, suite, tmp_path):
    """A second start takes up the records, and with them what was said of their edits."""
    whole, _ = finished
    chosen = settings(folder, tmp_path)

    class Killed(Exception):
        pass

    def stop_in_the_second_batch(done, total, doing):
        if done and doing == "null_text plain":
            raise Killed

    with pytest.raises(Killed):
        evaluate(chosen, model, suite, progress=stop_in_the_second_batch)
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").glob("*.json")}
    assert 0 < len(first) < 4
    seen = []
    results, _ = evaluate(chosen, model, suite, progress=lambda *said: seen.append(said))
    assert seen[0] == (0, 0, "loading the model")  # before anything that takes long
    assert list(dict.fromkeys(said[:2] for said in seen[2:])) == [(len(first), 4), (4, 4)]
    assert (seen[1][2], seen[2][2], seen[-1][2]) == ("reading the pictures of 4 edits", "pivot", "done")
    assert [doing for *_, doing in seen if doing.startswith("null_text, timestep")] == [
        f"null_text, timestep {i} of 4" for i in (1, 2, 3, 4)
    ]
    assert {p: p.stat().st_mtime_ns for p in first} == first  # not done again
    assert as_text(results.rows) == as_text(whole.rows)
    assert results.problems == whole.problems and len(results.problems) > 1  # those of the first batch, too


def as_text(rows):
    """All of some rows but the seconds, to the last digit; NaN equals NaN so."""
    return [json.dumps({**asdict(row), "scores": {**row.scores, "seconds": None}}) for row in rows]


def test_another_choice_is_refused_by_name(finished, folder, model, suite):
    _, store = finished
    with pytest.raises(UserError, match=r"seed 1234, not 7;.*--output"):
        evaluate(settings(folder, store.folder, seed=7), model, suite)
    shared = SHARED | {"inner_steps": 3}
    with pytest.raises(UserError, match=r"methods\.null_text\.inner_steps 2, not 3;.*--output"):
        evaluate(settings(folder, store.folder, shared=shared), model, suite)


def test_a_size_that_the_model_cannot_make_is_refused(folder, model, suite, tmp_path):
    with pytest.raises(UserError, match="size is 31; give a multiple of 2, such as 32"):
        evaluate(Settings(data=DataOptions(folder=folder, size=31), output=tmp_path), model, suite)


def test_a_damaged_record_is_done_again(folder, model, suite, tmp_path):
    chosen = settings(folder, tmp_path, limit=1, names=("ddim",), editing=("plain",))
    evaluate(chosen, model, suite)
    (record,) = (tmp_path / "records").glob("*.json")
    record.write_text("{")
    results, store = evaluate(chosen, model, suite)
    assert store.record(record.stem).rows == results.rows


# ------------------------------------------------------------------------------------------------ tables


def rows_of(values, method="ddim", editing="plain", metric="ssim"):
    costs = {"seconds": 1.5, "unet_evaluations": 10}
    return [Row(f"p{i}", "6_color", method, editing, {metric: v, **costs}) for i, v in enumerate(values)]


def test_mean_deviation_and_nans():
    summary = Summary.of([1.0, 3.0, math.nan])
    assert (summary.mean, summary.std, summary.n, summary.nan) == (2, pytest.approx(math.sqrt(2)), 2, 1)
    assert math.isnan(Summary.of([math.nan]).mean) and math.isnan(Summary.of([1.0]).std)


def test_tables_say_mean_deviation_nans_reasons_and_choices(tmp_path):
    rows = rows_of([0.25, 0.75, math.nan]) + rows_of([1.0, 1.0, 1.0], method="null_text")
    results = Results(
        rows,
        {"benchmark": "made up", "seed": 3},
        [metric() for metric in ALL_METRICS.values()],
        {"clip_whole": "no CLIP"},
        ["p9: torn; skipped"],
    )
    write_results(results, Store(tmp_path, {}))
    text = (tmp_path / "results.md").read_text()
    assert "| SSIM | 0.5000 ± 0.3536 (1 NaN) | 1.0000 ± 0.0000 |" in text
    assert "`clip_whole`: no CLIP" in text and "p9: torn" in text and "- seed: 3" in text
    document = json.loads((tmp_path / "results.json").read_text())
    cell = document["summary"]["6_color"]["ddim plain"]["ssim"]
    assert cell == {"mean": 0.5, "std": pytest.approx(0.35355, abs=1e-5), "n": 2, "nan": 1}
    lines = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(lines) == 6 and lines[2]["ssim"] == "nan" and lines[0]["seconds"] == "1.5"


def test_a_contact_sheet_has_a_column_a_method_and_a_row_a_way(finished):
    import numpy as np

    results, store = finished
    rows = [row for row in results.rows if row.edit_type == "6_change_attribute_color"]
    names = list(dict.fromkeys(row.picture for row in rows))
    sheet = np.asarray(contact_sheet(store, rows, tile=32))

    def corners(name, what):
        with Image.open(store.picture(name, what)) as picture:
            pixels = np.asarray(picture)
        return [
            (x, y)
            for y, x in np.argwhere((sheet == pixels[0, 0]).all(-1))
            if np.array_equal(sheet[y : y + 32, x : x + 32], pixels)
        ]

    ((left, top),) = corners(names[0], "source")
    step = corners(names[0], "generated-reconstruction")[0][0] - left
    assert step > 32
    for y, name in enumerate(names):
        for method, way in (("null_text", "default"), ("negative_prompt", "prompt_to_prompt")):
            across, down = 1 + METHODS.index(method), y * len(WAYS) + WAYS.index(way)
            assert (left + across * step, top + down * step) in corners(name, f"{method}-{way}")


def test_files_of_a_finished_benchmark(finished):
    results, store = finished
    write_results(results, store)
    write_figures(results, store)
    names = ("results.csv", "results.json", "results.md", "sheets/1_change_object.png", "boxes/all.png")
    for name in names:
        assert (store.folder / name).is_file(), name
    assert len(list(store.folder.glob("events.out.tfevents.*"))) == 1
    text = markdown(results)
    assert "## PIE-Bench's table" in text and "| null_text | prompt_to_prompt |" in text
    assert "clip_whole`: no CLIP model was named" in text and "## Definitions" not in markdown(
        results, notes=False
    )
    document = json.loads((store.folder / "results.json").read_text())
    assert document["choices"]["methods"]["null_text"]["inner_steps"] == 2
    assert set(document["definitions"]) == {c.name for c in results.columns}


# ------------------------------------------------------------------------------------------------ one's own


def test_pictures_with_captions_are_scored_by_their_reconstruction(model, suite, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for seed, name in enumerate(("a", "b")):
        pixels = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(seed)).mul(255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name}")
    before = sorted(folder.iterdir())
    chosen = Settings(
        methods=build_methods(["ddim", "direct"], SHARED),
        data=DataOptions(folder=folder),
        output=tmp_path / "out",
    )
    results, store = evaluate(chosen, model, suite)
    assert {(r.picture, r.method, r.editing) for r in results.rows} == {
        (p, m, "reconstruction") for p in "ab" for m in ("ddim", "direct")
    }
    assert sorted(folder.iterdir()) == before
    write_results(results, store)
    write_figures(results, store)
    text = (store.folder / "results.md").read_text()
    assert "# pictures: 2 pictures" in text and "## Reconstruction" in text and "PIE-Bench" not in text


STRANGER = '''
from dataclasses import dataclass

from nulltext.editing.kinds import Kind
from nulltext.editing.kinds.controls import RowControl
from nulltext.inversion.methods.ddim import DDIM
from nulltext.metrics import Metric


@dataclass(frozen=True)
class Halved(DDIM):
    """DDIM whose null text is halved."""

    factor: float = 0.5
    title = "halved"

    def null_text(self, model, cond, size):
        return super().null_text(model, cond, size).map(lambda x: x * self.factor)


class Brightness(Metric):
    """Mean of the output."""

    name, title = "brightness", "Brightness"

    def __call__(self, outputs, reference):
        return outputs.flatten(1).mean(1)


class Nothing(Kind):
    """No attention control."""

    def control(self, source, target, steps):
        return RowControl.nothing(steps, target.length)
'''


def test_a_strangers_method_metric_and_kind_take_part_by_their_import_paths(
    folder, model, tmp_path, monkeypatch
):
    (tmp_path / "stranger_of_tables.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    chosen = settings(
        folder,
        tmp_path / "out",
        names=["ddim", "stranger_of_tables.Halved"],
        shared=SHARED | {"factor": 0.25},
        editing=("plain", "stranger_of_tables.Nothing"),
        metrics=MetricOptions(clip=None, own=["stranger_of_tables.Brightness"]),
        limit=1,
    )
    assert chosen.methods["Halved"].factor == 0.25
    results, _ = evaluate(chosen, model, load_metrics(chosen.metrics))
    assert results.methods == ["ddim", "Halved"]
    assert results.ways == ["reconstruction", "plain", "stranger_of_tables.Nothing"]
    text = markdown(results)
    assert "nan" not in text.partition("## Definitions")[0]  # no deviation of a single edit
    assert "## Further metrics" in text and "Brightness" in text and "Mean of the output." in text
    reconstructions = {r.method: r.scores["psnr"] for r in results.rows if r.editing == "reconstruction"}
    assert reconstructions["ddim"] != reconstructions["Halved"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"methods": {}}, "no methods are named"),
        ({"device": "abacus"}, "abacus"),
        ({"precision": "8"}, "precision"),
        ({"editing": ("plain", "plane")}, "'plane' is not one of plain"),
        ({"editing": ("no.such.Kind",)}, "no.such"),
        ({"data": DataOptions()}, "--data.folder"),
    ],
)
def test_mistakes_are_one_line_before_anything_loads(changes, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        evaluate(Settings(output=tmp_path / "out", **changes))
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "said"), [("edict", "edict"), ("no.such.Method", "no.such"), ("json.loads", "derive")]
)
def test_an_unknown_method_is_one_line(name, said):
    with pytest.raises(UserError, match=said) as raised:
        build_methods([name])
    assert "\n" not in str(raised.value)


def test_every_method_can_be_compared():
    from nulltext.inversion import METHODS as INVERSIONS

    assert list(COMPARED) == ["generated", *INVERSIONS]


def test_progress_in_a_pipe_is_lines_the_first_at_once(capsys, monkeypatch):
    clock = iter([100.0, 110.0, 115.0, 140.0, 170.0, 180.0])
    monkeypatch.setattr("nulltext.evaluation.progress.time.monotonic", lambda: next(clock))
    with Progress() as show:
        show(0, 0, "loading the model")
        show(4, 9, "pivot")  # four were done before
        show(4, 9, "null_text plain")  # 5 s later: nothing new
        show(4, 9, "scores")
        show(6, 9, "pivot")  # 30 s for an edit
        show(9, 9, "done")
    assert capsys.readouterr().err.splitlines() == [
        "benchmark: loading the model",
        "benchmark: 4 of 9 edits, pivot",
        "benchmark: 4 of 9 edits, scores",
        "benchmark: 6 of 9 edits, about 2 min left, pivot",
        "benchmark: 9 of 9 edits, done",
    ]


def test_progress_on_a_terminal_is_a_bar_that_begins_where_the_benchmark_was(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress() as show:
        show(0, 0, "loading the model")
        show(4, 8, "pivot")
        assert (show.bar.n, show.bar.initial, show.bar.total) == (4, 4, 8)
        show(6, 8, "scores")
        assert show.bar.n == 6
    assert "scores" in capsys.readouterr().err
