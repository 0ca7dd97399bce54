"""The benchmark of edits: its scenes, its ways, its numbers."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nulltext.editing import Edit
from nulltext.farmyard import world as farm
from nulltext.inversion import find_method

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
edits: Any = pytest.importorskip("edits")


def test_every_way_names_a_method_and_is_an_edit() -> None:
    for way in edits.WAYS.values():
        assert way.inversion in edits.METHODS
        assert find_method(way.replay or "null_text")
        assert Edit("a photo of a horse", **way.options).prompt == "a photo of a horse"
    for name in edits.GROUPS["nulls"]:
        assert edits.WAYS[name].options["local_blend"] is None


def test_random_changes_are_those_of_the_farmyard_benchmark_one_or_two_at_once() -> None:
    singles, doubles = (list(edits.scenes(kind, 14)) for kind in ("single", "double"))
    assert len({before.seed for before, _ in singles}) == 14
    assert len({change.name for _, (change,) in singles}) == 8  # in turn; the style has none
    assert {change.name for _, (change,) in doubles} == {"two changes"}
    for before, (change,) in singles + doubles:
        assert farm.caption(before) != farm.caption(change.after)
    assert [b for b, _ in edits.scenes("single", 5, seed=1)] != [b for b, _ in singles[:5]]


def test_the_six_changes_are_of_white_sheep_on_a_meadow() -> None:
    found = list(edits.scenes("six", 3))
    assert len({before.seed for before, _ in found}) == 3
    for before, changes in found:
        assert (before.animal, before.colour, before.hat, before.place) == ("sheep", "white", None, "meadow")
        assert [change.name for change in changes] == list(edits.SIX)
        assert all(change.after.seed == before.seed != 0 for change in changes)


def test_an_edit_is_accurate_if_all_that_changed_is_read_so() -> None:
    before = farm.random_scene(1_000_000)
    after = farm.replace(
        before, animal="elk" if before.animal != "elk" else "cow", place="snow", light="noon"
    )
    read = {"animal": [after.animal, "pig"], "place": ["snow", "snow"]}
    assert edits.accuracy(read, 0, before, after) == 1 and edits.accuracy(read, 1, before, after) == 0
    assert math.isnan(edits.accuracy(read, 0, before, farm.replace(before, light="evening")))


def test_the_table_has_means_over_scenes() -> None:
    def row(scene: int, change: str, accuracy: float, decibels: float) -> dict[str, Any]:
        numbers = {"background": decibels, "truth": decibels + 1, "inside": decibels + 2, "cost": 42}
        return {"way": "plain", "change": change, "scene": scene, "accuracy": accuracy, **numbers}

    rows = [row(1, "hat", 1, 20), row(2, "hat", 0, 30), row(1, "style", math.nan, 10)]
    lines = edits.table(rows, "command").splitlines()
    assert lines[0].startswith("`command`; CLIP accuracy")
    cells = [
        "50% / 25.0 / 26.0 / 27.0 / 42.0",
        "- / 10.0 / 11.0 / 12.0 / 42.0",
        "50% / 20.0 / 21.0 / 22.0 / 42.0",
    ]
    assert lines[-1] == f"| plain | {' | '.join(cells)} |"


def test_the_benchmark_runs_writes_and_draws(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scene, plain edits, the learned null text and the source prompt's."""
    entry = edits.METHODS["default"]
    monkeypatch.setitem(edits.METHODS, "default", entry._replace(method=replace(entry.method, steps=3)))
    monkeypatch.setattr(edits, "SIX", {"sheep to horse": {"animal": "horse"}, "light": {"light": "evening"}})
    numbers = [list(edits.WAYS).index(f"plain, null text {n}") for n in ("learned", "source prompt")]
    words = ["--model", str(tiny_sd), "--scenes", "1", "--ways", ",".join(map(str, numbers))]
    out, figure = tmp_path / "edits", tmp_path / "edits.png"
    assert edits.main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert len(rows) == 4 and all(row["truth"] > 0 for row in rows)
    assert [math.isnan(row["accuracy"]) for row in rows] == [False, True] * 2
    assert "| plain, null text source prompt |" in capsys.readouterr().out
    with Image.open(figure) as picture:
        assert picture.format == "PNG"
