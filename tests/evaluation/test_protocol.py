"""The stamp of a table, its rows, and pictures that another tool finished, scored by the same stamp."""

import csv
import json
import math
import shutil

import pytest
import test_evaluation
import torch
from PIL import Image
from test_evaluation import SHARED

from nulltext.errors import UserError
from nulltext.evaluation import DataOptions, Settings, build_methods, evaluate, write_results
from nulltext.evaluation.benchmarks.base import Task
from nulltext.evaluation.protocol import digest, line
from nulltext.evaluation.report.tables import Table, latex
from nulltext.evaluation.results import Difference
from nulltext.evaluation.settings import PublishedEdit
from nulltext.evaluation.ways import take_back
from nulltext.inversion import METHODS
from nulltext.metrics import psnr
from nulltext.pixels import as_saved, from_image

folder, model, suite = test_evaluation.folder, test_evaluation.model, test_evaluation.suite
PIXELS = ("psnr", "ssim", "mse", "background_psnr", "background_ssim")


@pytest.fixture(scope="module")
def run(folder, model, suite, tmp_path_factory):
    """Gives what a comparison leaves; its output folder is new unless it is named."""

    def evaluated(names=("ddim",), data=folder, output=None, **changes):
        settings = Settings(
            methods=build_methods(names, SHARED),
            data=DataOptions(
                "pie_bench", data, limit=changes.pop("limit", None), size=changes.pop("size", None)
            ),
            output=output or tmp_path_factory.mktemp("out"),
            editing=changes.pop("editing", ("plain",)),
            **changes,
        )
        return evaluate(settings, model if names else None, suite)

    return evaluated


@pytest.fixture(scope="module")
def finished(run):
    return run(("ddim", "residual", "edit_friendly"))


# ------------------------------------------------------------------------------------------------ the stamp


def test_the_stamp_is_the_same_for_the_same_and_another_for_another(finished, run, folder, tmp_path):
    stamp = finished[0].protocol
    assert run(("ddim", "residual", "edit_friendly"))[0].protocol == stamp
    others = [run(limit=2)[0].protocol, run(("ddim", "residual", "edit_friendly"), seed=7)[0].protocol]
    shutil.copytree(folder, tmp_path / "copy")
    assert run(("ddim", "residual", "edit_friendly"), tmp_path / "copy")[0].protocol == stamp
    picture = tmp_path / "copy" / "annotation_images" / "a.png"
    Image.open(picture).rotate(90).save(picture)
    others.append(run(("ddim", "residual", "edit_friendly"), tmp_path / "copy")[0].protocol)
    assert len({digest(each) for each in (stamp, *others)}) == 4
    assert stamp["pictures_sha256"] == others[1]["pictures_sha256"] != others[2]["pictures_sha256"]


def test_the_line_says_what_a_reader_must_know(finished):
    text = line(finished[0].protocol)
    for fact in (
        "4 edits of 3 pictures (sha256 ",
        "at 32 px",
        "without their brackets",
        "masks: for scores alone",
        "steps: 4",
        "seed 1234",
        "networks: none",
        "torch ",
        "commit ",
    ):
        assert fact in text
    assert "\n" not in text


# ------------------------------------------------------------------------------------------------ rows


def test_a_row_an_edit_in_every_form_and_an_imagefolder(finished):
    results, store = finished
    write_results(results, store)
    text = (store.folder / "results.jsonl").read_text()
    rows = [json.loads(each, parse_constant=lambda name: pytest.fail(name)) for each in text.splitlines()]
    with (store.folder / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    listed = [json.loads(each) for each in (store.pictures / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == len(table) == len(listed) == len(results.rows) == 4 * 3 * 2
    for row, line_of_table, picture, result in zip(rows, table, listed, results.rows, strict=True):
        assert (store.folder / row["file_name"]).is_file() and (
            store.pictures / picture["file_name"]
        ).is_file()
        assert (store.folder / row["source_file_name"]).is_file() and row["prompt"] == "a white sheep"
        assert row["protocol"] == line_of_table["protocol"] == digest(results.protocol)
        assert row["target_prompt"] == line_of_table["target_prompt"] == result.target_prompt
        assert row["file_bytes"] == result.scores["file_bytes"] > 4 * 4 * 16 * 16
        for name in PIXELS:
            assert (row[name] is None) == math.isnan(result.scores[name])
            assert float(line_of_table[name]) == pytest.approx(result.scores[name], rel=1e-5, nan_ok=True)
    assert len({row["file_name"] for row in rows}) == len(rows)


def test_latex_says_the_same_in_its_own_letters(finished):
    text = latex(finished[0])
    assert text.startswith("% Protocol p") and text.count(r"\begin{table}") == text.count(r"\end{table}") > 3
    assert (
        r"edit\_friendly & plain" in text and r"$\pm$" in text and "_friendly" not in text.replace(r"\_", "")
    )
    hard = Table("50 % & more", ["a_b"], [["\\ ~ ^ # {x} ± $"]]).latex()
    assert r"50 \% \& more" in hard and r"a\_b" in hard
    body = hard.splitlines()[6]
    assert body == r"\textbackslash{} \textasciitilde{} \textasciicircum{} \# \{x\} $\pm$ \$ \\"


# ------------------------------------------------------------------------------------------------ differences


def test_a_constant_difference_has_no_spread_and_what_one_lacks_is_left_out():
    ours = {"a": 3.0, "b": 5.0, "c": math.nan, "d": 1.0}
    assert Difference.of(ours, {"a": 1.0, "b": 3.0, "c": 0.0}) == Difference(2.0, 2.0, 2.0, 2)
    assert Difference.of(ours, {}).n == 0


def test_the_interval_is_that_of_the_mean():
    """Of many normal differences it is the mean plus and minus 1.96 standard errors, to a tenth."""
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    found = Difference.of(
        {str(k): float(v) for k, v in enumerate(values)}, dict.fromkeys(map(str, range(400)), 0.0)
    )
    error = 1.96 * float(values.std()) / 20
    assert found.mean == pytest.approx(float(values.mean()))
    assert found.high - found.mean == pytest.approx(error, rel=0.1)
    assert found.mean - found.low == pytest.approx(error, rel=0.1)


def test_methods_are_compared_on_the_same_pictures(finished):
    results, _ = finished
    column = next(column for column in results.columns if column.name == "psnr")
    assert results.baseline == "ddim"
    found = results.difference("residual", "plain", column)
    means = [results.summary(name, "plain", column).mean for name in ("residual", "ddim")]
    assert found.n == 4 and found.mean == pytest.approx(means[0] - means[1])
    assert found.low <= found.mean <= found.high


# ------------------------------------------------------------------------------------------------ round trip


def test_a_round_trip_is_the_edit_taken_back(run):
    results, store = run(("ddim", "direct"), round_trip=True, limit=1)
    for row in results.rows:
        assert ("round_trip_psnr" in row.scores) == (row.editing == "plain")
        if row.editing == "plain":
            back, source = (
                as_saved(from_image(Image.open(store.picture(row.picture, name))))[None]
                for name in (f"{row.method}-plain-back", "source")
            )
            assert row.scores["round_trip_psnr"] == pytest.approx(float(psnr(back, source)), abs=1e-4)


def test_fewer_round_trips_than_none_are_refused():
    with pytest.raises(UserError, match="round_trip is -1"):
        Settings(round_trip=-1)


def test_two_round_trips_are_back_forth_and_back(model):
    there = Task("one", b"", "a white sheep on a meadow", "a black sheep on a meadow")
    back_again = Task("one", b"", "a black sheep on a meadow", "a white sheep on a meadow")
    picture = torch.rand(
        3, model.default_size, model.default_size, generator=torch.Generator().manual_seed(0)
    )
    method = METHODS["ddim"](steps=2, guidance_scale=2.0)

    def back(task, picture, times):
        return take_back(model, task, method, "plain", picture, PublishedEdit(), times)

    once = back(there, picture, 1)
    twice = back(there, back(back_again, once, 1), 1)
    assert torch.equal(back(there, picture, 2), twice) and not torch.equal(once, twice)


# ------------------------------------------------------------------------------------------------ finished pictures


def scores(results, method, way):
    return {
        r.picture: {name: r.scores[name] for name in PIXELS}
        for r in results.rows
        if (r.method, r.editing) == (method, way)
    }


def same(found, wanted):
    assert found.keys() == wanted.keys() and found
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, nan_ok=True)


def test_our_own_pictures_scored_as_another_tools_have_our_scores(finished, run):
    ours, store = finished
    write_results(ours, store)
    theirs, _ = run((), finished={"other": store.pictures}, size=32)
    assert theirs.methods == ["other_ddim", "other_residual", "other_edit_friendly"]
    same(scores(theirs, "other_residual", "plain"), scores(ours, "residual", "plain"))
    assert theirs.protocol["pictures_sha256"] == ours.protocol["pictures_sha256"]
    assert "finished elsewhere, masks and seeds not known: other" in line(theirs.protocol)
    together, _ = run(("direct",), finished={"other": store.pictures})
    assert together.methods == ["direct", "other_ddim", "other_residual", "other_edit_friendly"]
    assert "seconds" not in next(r.scores for r in together.rows if r.method == "other_ddim")


@pytest.mark.parametrize("layout", ["names", "strips"])
def test_pictures_are_found_by_the_edits_name_and_strips_are_cut(layout, finished, run, tmp_path):
    ours, store = finished
    for row in ours.rows:
        if (row.method, row.editing) == ("ddim", "plain"):
            with Image.open(store.picture(row.picture, "ddim-plain")) as picture:
                strip = Image.new(
                    "RGB", (picture.width * (4 if layout == "strips" else 1), picture.height), "red"
                )
                strip.paste(picture, (strip.width - picture.width, 0))
            strip.save(tmp_path / f"{row.picture}.png")
    theirs, _ = run((), finished={"theirs": tmp_path})
    assert theirs.protocol["side"] == 32
    same(scores(theirs, "theirs", "finished"), scores(ours, "ddim", "plain"))


def test_pictures_are_found_by_the_path_of_their_source_where_that_is_one_edits(
    finished, run, folder, tmp_path
):
    """As PIE-Bench's evaluator has them; a.png is the source of two edits, so its picture may be of either."""
    shutil.copytree(folder / "annotation_images", tmp_path / "annotation_images")
    results, _ = run((), finished={"copy": tmp_path}, size=32)
    assert {row.picture for row in results.rows} == {"000000000001", "000000000003"}
    assert all(row.scores["psnr"] == 100 for row in results.rows)
    assert sum("copy: no finished picture" in problem for problem in results.problems) == 2
    assert results.protocol["edits"] == results.protocol["pictures"] == 2


def test_a_folder_of_nothing_finished_is_one_line(run, tmp_path):
    for place, said in ((tmp_path, "has no picture of these 4 edits"), (tmp_path / "none", "no folder")):
        with pytest.raises(UserError, match=said) as raised:
            run((), finished={"x": place})
        assert "\n" not in str(raised.value)
    (tmp_path / "metadata.jsonl").write_text(
        '{"picture": "a", "file_name": "../x.png", "target_prompt": "b"}\n'
    )
    with pytest.raises(UserError, match=r"metadata.jsonl:1 names no picture of its folder"):
        run((), finished={"x": tmp_path})
