"""The front and the figures of what is learned."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT
from PIL import Image

from nulltext.inversion import NullText
from nulltext.inversion.methods.ddim import DDIM
from nulltext.models import DiffusionModel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
front: Any = pytest.importorskip("front")
learning: Any = pytest.importorskip("learning")
subjects: Any = pytest.importorskip("subjects")


def _latents(model: DiffusionModel) -> torch.Tensor:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return model.encode(pixels)


def test_the_front_has_at_most_five_curves_of_three_families() -> None:
    assert len(front.CURVES) <= 5 and len({curve.name for curve in front.CURVES}) == len(front.CURVES)
    assert {curve.family for curve in front.CURVES} == set(front.LOOKS)
    for curve in front.CURVES:
        assert len({front.words_of(method) for method in curve.methods}) == len(curve.methods)


def test_a_point_has_the_counts_of_one_picture(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = DDIM(steps=3, fixed_point_iterations=0)
    curve = front.Curve("source prompt", "DDIM", (method,))
    point = front.measure(model, subjects.subjects_of(model, 2, 0), curve, method)
    assert (point.evaluations, point.settings) == (
        9,
        "T = 3, N = 0",
    )  # the pivot, and two for each guided step
    assert point.drawings[0] >= point.drawings[1] > 0


def test_the_front_prints_writes_and_draws(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / "front", tmp_path / "front.png"
    words = ["--model", str(tiny_sd), "--drawings", "1", "--photographs", "0", "--curves", "as published"]
    assert front.main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    points = json.loads(out.with_suffix(".json").read_text())["points"]
    assert [p["evaluations"] for p in points] == [
        20,
        40,
        100,
    ]  # one evaluation serves both halves of the guidance
    assert (
        "| T = 10, N = 0 | 20 |" in printed and printed.strip() == out.with_suffix(".md").read_text().strip()
    )
    with Image.open(figure) as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 24) or []) > 10


def test_a_word_of_no_curve_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["--photographs", "0", "--curves", "nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no curve has such a word; there are: from the empty prompt")


def test_without_learning_the_residual_from_the_empty_prompt_is_that_of_guidance(tiny_sd: Path) -> None:
    """On a pivot that the conditional trajectory meets exactly it is 1: nothing of guidance is corrected."""
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = NullText(steps=1, inner_steps=0, start=0.0, fixed_point_iterations=60, pivot_tolerance=0.0)
    found = learning.learn(model, _latents(model), PROMPT, method, "none")
    assert found.before == found.after
    assert found.before[0] == pytest.approx(1, abs=1e-3)


def test_learning_lowers_the_residual_and_the_loss(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = NullText(steps=4, inner_steps=3, last_factor=1, shortest_step=0.0)
    method = replace(method, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    found = learning.learn(model, _latents(model), PROMPT, method, "learned")
    assert len(found.timesteps) == len(found.before) == 4 and found.timesteps[0] > found.timesteps[-1]
    assert all(len(losses) == 4 for losses in found.losses)
    best = found.best()
    assert found.losses[best][-1] < found.losses[best][0] and found.after[best] < found.before[best]


def test_both_figures_are_drawn(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.effect_noise((32, 32), 50).convert("RGB").save(tmp_path / "sheep.png")
    entry = learning.METHODS["default"]
    monkeypatch.setitem(learning.METHODS, "default", entry._replace(method=replace(entry.method, steps=3)))
    words = [str(tmp_path / "sheep.png"), "--prompt", "a sheep", "--model", str(tiny_sd)]
    figure = tmp_path / "learned.png"
    assert learning.main([*words, "--methods", "default", "--figure", str(figure)]) == 0
    assert capsys.readouterr().out.count("residual") == 3
    with Image.open(figure) as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 24) or []) > 10
