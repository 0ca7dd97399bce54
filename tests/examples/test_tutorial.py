"""The tutorial's cells run from first to last, and what the text says of them is so."""

import itertools
import json
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def cells(kind: str) -> list[str]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def run(monkeypatch: pytest.MonkeyPatch, steps: int, inner_steps: int) -> dict:
    monkeypatch.chdir(ROOT)
    matplotlib.use("Agg")
    names: dict = {}
    first, *others = cells("code")
    for cell in (first, f"T, N = {steps}, {inner_steps}", *others):
        exec(cell, names)
    return names


def test_every_cell_runs_and_learning_helps(monkeypatch):
    names = run(monkeypatch, steps=6, inner_steps=3)
    first, last = names["losses"][0][0], names["losses"][0][-1]
    assert last < first
    nulls = [null.sequence for null in names["nulls"]]
    assert len(nulls) == 6
    assert all((a != b).any() for a, b in itertools.pairwise(nulls))  # each step has one of its own


@pytest.mark.slow
def test_the_whole_tutorial_shows_what_it_says(monkeypatch):
    names = run(monkeypatch, steps=20, inner_steps=10)
    psnr, bound, pictures = names["psnr"], names["bound"], names["pictures"]
    assert psnr(pictures[1.0], bound) > names["unlearned"] + 10  # guidance leaves the pivot
    assert psnr(names["learned"], bound) > names["unlearned"] + 8  # learning comes back
    assert psnr(names["edited"], names["picture"].pixels) < 25  # another animal


def test_algorithm_1_stays_as_short_as_its_box():
    (algorithm,) = [cell for cell in cells("code") if "def null_text_inversion" in cell]
    body = algorithm.split("def null_text_inversion", 1)[1].split("\n\n\n")[0]
    assert len(body.splitlines()) <= 40


def test_the_notebook_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 400_000
    assert "/home/" not in text
    assert "/work" not in text
