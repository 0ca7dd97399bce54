"""The benchmark of speed: that what it compares with is the reference, and that it counts and prints rightly."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import PROMPT
from PIL import Image
from safetensors.torch import save_file

from nulltext.backbone import Backbone
from nulltext.ddim import ddim_step
from nulltext.inversion import ddim_invert, optimise

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
batches: Any = pytest.importorskip("batches")
front: Any = pytest.importorskip("front")
laws: Any = pytest.importorskip("laws")
methods: Any = pytest.importorskip("methods")
reference: Any = pytest.importorskip("reference")
shapes: Any = pytest.importorskip("shapes")
speed: Any = pytest.importorskip("speed")
subjects: Any = pytest.importorskip("subjects")


def _subject(backbone: Backbone) -> Any:
    pixels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return subjects.subject_of(backbone, pixels, PROMPT)


def test_paper_is_the_reference(tiny_sd: Path) -> None:
    """The same embeddings and latents to the bit, for the same evaluations."""
    backbone = Backbone.from_pretrained(str(tiny_sd))
    subject, steps = _subject(backbone), 5
    theirs = methods.run_reference(backbone, subject, steps)
    spent = backbone.forwards, backbone.backwards
    backbone.forwards = backbone.backwards = 0
    ours = methods.METHODS["paper"][0](backbone, subject, steps)
    assert (backbone.forwards, backbone.backwards) == spent
    assert torch.equal(ours.null, theirs.null) and torch.equal(ours.z_0, theirs.z_0)
    assert not torch.equal(ours.null[-1], ours.null[0])


def test_paper_has_the_references_constants() -> None:
    paper = methods.PAPER
    assert paper.steps == reference.STEPS == methods.METHODS["reference"][1]
    assert paper.inner_steps == reference.INNER_STEPS
    assert paper.guidance_scale == reference.GUIDANCE_SCALE
    assert paper.early_stop_loss == reference.EPSILON
    optimizer = methods.PAPER_OPTIMIZER([torch.zeros(1)])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == reference.LEARNING_RATE


def test_the_reference_walks_as_diffusers_does(tiny_sd: Path) -> None:
    scheduler = reference.ddim_scheduler(Backbone.from_pretrained(str(tiny_sd)).scheduler_config, 50)
    theirs = reference.Reference(None, scheduler, torch.zeros(1), torch.zeros(1))
    z, eps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for t in (scheduler.timesteps[0], scheduler.timesteps[-1]):
        there = scheduler.step(eps, t, z).prev_sample
        torch.testing.assert_close(theirs.towards_picture(z, eps, t), there)
        torch.testing.assert_close(theirs.towards_noise(there, eps, t), z, rtol=1e-4, atol=1e-4)
        here, before = theirs.levels(t)
        torch.testing.assert_close(ddim_step(z, eps, here, before), there, rtol=1e-4, atol=1e-4)


def test_the_references_weights_pile_up_gradients_and_ours_do_not(tiny_sd: Path) -> None:
    for name, piles_up in (("reference", True), ("paper", False)):
        backbone = Backbone.from_pretrained(str(tiny_sd))
        backbone.unet.requires_grad_(piles_up)
        methods.METHODS[name][0](backbone, _subject(backbone), 1)
        assert (backbone.unet.conv_in.weight.grad is not None) == piles_up


def test_times_of_parts_follow_the_counts(tiny_sd: Path) -> None:
    """A unit of one second each turns seconds into evaluations."""
    backbone = Backbone.from_pretrained(str(tiny_sd))
    units = SimpleNamespace(forward=1.0, pair=2.0, gradient=2.0)
    for settings, run in (
        (methods.PAPER, methods.METHODS["paper"][0]),
        (methods.DEFAULT, methods.METHODS["default"][0]),
        (methods.PAPER, methods.run_reference),
    ):
        backbone.forwards = backbone.backwards = 0
        run(backbone, _subject(backbone), 3)
        seconds = shapes.seconds_of(units, replace(settings, steps=3), backbone.backwards)
        assert seconds == backbone.forwards + backbone.backwards


def test_a_whole_comparison_runs_and_writes(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(tiny_sd), "--pictures", "1", "--methods", "default"]
    assert speed.main([*options, "--out", str(tmp_path / "speed")]) == 0
    assert "| ours, the default |" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "speed.json").read_text())["methods"]
    t, n = methods.DEFAULT.steps, methods.DEFAULT.inner_steps
    assert 2 * t <= found["forwards"][0] <= 2 * t + 2 + n * t
    assert found["backwards"][0] <= n * t
    assert "| ours, the default |" in (tmp_path / "speed.md").read_text()


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the rows of a table here, which spares a start of Python for each."""

    def measure_here(name: str, argv: list[str], folder: Path) -> tuple[Any, Path]:
        to = folder / f"{name}.json"
        speed.measure_here(speed.parse([*argv, "--only", name, "--to", str(to)]))
        return json.loads(to.read_text()), to.with_suffix(".safetensors")

    for module in (batches, laws):
        monkeypatch.setattr(module, "measure_apart", measure_here)


def test_batches_are_the_same_pictures_as_one_by_one(
    in_this_process: None, tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "batches"
    words = ["--model", str(tiny_sd), "--batches", "2", "--repeats", "1", "--out", str(out)]
    assert speed.main(words) == 0
    one, two = json.loads(out.with_suffix(".json").read_text())["batches"]
    assert (one["size"], two["size"], one["pictures"], two["pictures"]) == (1, 2, 2, 2)
    assert one["apart"] == {"null": 0, "z_0": 0}
    assert two["apart"]["null"] < 1e-4 and two["apart"]["z_0"] < 1e-2  # another order: more than 1
    t = methods.DEFAULT.steps
    assert 2 * t <= one["evaluations"] <= two["evaluations"] <= 4 * t + 2
    assert f"| {3600 / two['seconds']:.0f} |" in capsys.readouterr().out


def test_how_far_batches_are_apart(tmp_path: Path) -> None:
    for name, change in (("a", 0.0), ("b", 0.5)):
        null, z_0 = torch.zeros(2, 3), torch.ones(4)
        null[1, 2], z_0[0] = -change, 1 + change / 2
        save_file({"null": null, "z_0": z_0}, tmp_path / name)
    assert batches.apart(tmp_path / "b", tmp_path / "a") == {"null": 0.5, "z_0": 0.25}


@pytest.mark.parametrize("words", ["", "two", "1,,2", "0", "-1", "1.5"])
def test_batches_of_no_size_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.main([f"--batches={words}"])
    assert "such as 1,2,4,8" in capsys.readouterr().err


def test_batches_that_the_photographs_cannot_fill_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--batches", "1,8", "--photographs"]) == 2
    assert "try --batches 1,2,4" in capsys.readouterr().err


def test_laws_vary_one_thing_at_a_time(
    in_this_process: None, tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "laws"
    words = ["--model", str(tiny_sd), "--repeats", "1", "--out", str(out)]
    assert speed.main([*words, "--laws", "steps-10", "pictures-2", "side-1.5"]) == 0
    base, *found = json.loads(out.with_suffix(".json").read_text())["laws"]
    assert (base["steps"], base["pictures"], base["side"]) == (20, 1, 32)
    points = [(law["steps"], law["pictures"], law["side"]) for law in found]
    assert points == [(10, 1, 32), (20, 2, 32), (20, 1, 48)]
    printed = capsys.readouterr().out
    for law in (base, *found):
        inversions = law["pictures"]
        assert law["forwards"] - law["backwards"] == (2 * law["steps"] + 2) * inversions
        assert 0 <= law["backwards"] <= law["steps"] * inversions
        assert f"| {law['steps']} | {law['pictures']} | {law['side']} x {law['side']} |" in printed


def test_the_front_has_each_choice_and_a_name_for_each_variant() -> None:
    names = [variant.name for variant in front.VARIANTS]
    assert len(set(names)) == len(names)
    default = next(v for v in front.VARIANTS if v.name.endswith("(default)"))
    assert default.settings == methods.DEFAULT and not default.optimizer
    chosen = [v.settings for v in front.VARIANTS]
    assert {s.fixed_point_iterations for s in chosen} == {0, 1, 2}
    assert {s.start for s in chosen} == {0.0, 0.5, 1.0}
    assert {s.inner_steps for s in chosen} == {0, 1, 2, 10}
    assert {s.tolerance for s in chosen} == {0.0, 1e-5}
    assert {steps for v in front.VARIANTS for steps in v.steps} == {10, 20, 25, 50}


@pytest.mark.parametrize("optimizer", ["", "exact length"])
def test_a_picture_counts_in_a_batch_what_it_takes_by_itself(tiny_sd: Path, optimizer: str) -> None:
    """Each has its own number of inner steps: the tolerance lies amid their losses."""
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels[1] *= 0.1
    prompts = [PROMPT, "a", "an old barn"]
    schedule, cond = backbone.schedule(5), backbone.embed_prompt(prompts)
    pivot = ddim_invert(backbone, schedule, backbone.encode_image(pixels), cond, fixed_point_iterations=1)
    records = [record for record, _ in optimise(backbone, schedule, pivot, cond, methods.DEFAULT)]
    settings = replace(methods.DEFAULT, tolerance=float(torch.stack([r.losses[0] for r in records]).median()))
    variant = [front.Variant(settings, (5,), optimizer)]
    (whole,) = front.measure(backbone, pixels, prompts, 2, variant)
    alone = []
    for k in range(3):
        pair = [k, k]  # a drawing and a photograph
        (point,) = front.measure(backbone, pixels[pair], [prompts[k]] * 2, 1, variant)
        alone.append(point)
    assert len({point.backwards for point in alone}) > 1
    for name in ("forwards", "backwards"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(p, name) for p in alone) / 3)


def test_the_front_is_what_no_cheaper_point_equals() -> None:
    points = [
        front.Point(name, 1, forwards, backwards, (drawn, 0.0), (photographs, 0.0))
        for name, forwards, backwards, drawn, photographs in (
            ("dear", 30, 20, 40.0, 25.0),
            ("cheap", 10, 0, 20.0, 30.0),
            ("worse", 20, 10, 15.0, 30.0),
            ("middle", 20, 0, 30.0, 31.0),
        )
    ]
    assert [p.name for p in front.front_of(points, "drawn")] == ["cheap", "middle", "dear"]
    assert [p.name for p in front.front_of(points, "photographs")] == ["cheap", "middle"]
    rows = front.table(points).splitlines()[2:]
    assert rows[0] == "| dear | 1 | 30 | 20 | 50 | **40.0** (0.0) | 25.0 (0.0) |"
    assert rows[2] == "| worse | 1 | 20 | 10 | 30 | 15.0 (0.0) | 30.0 (0.0) |"


def test_the_front_prints_writes_and_draws(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    out, figure = tmp_path / "front", tmp_path / "front.png"
    words = ["--model", str(tiny_sd), "--pictures", "1", "--variants", "source, N = 0, pivot 0"]
    assert front.main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    points = json.loads(out.with_suffix(".json").read_text())
    assert [(p["steps"], p["forwards"], p["backwards"]) for p in points] == [
        (t, 2 * t, 0) for t in (10, 20, 25, 50)
    ]
    assert "| source, N = 0, pivot 0 | 10 | 20 | 0 | 20 |" in printed
    assert printed.strip() == out.with_suffix(".md").read_text().strip()
    with Image.open(figure) as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 24) or []) > 10


def test_the_front_says_what_is_missing_before_it_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subjects, "find_spec", lambda module: None if module == "matplotlib" else module)
    words = ["--model", "no such model", "--figure", "front.png"]
    assert front.main(words) == 2
    assert "matplotlib, which is not installed; pip install" in capsys.readouterr().err
    assert front.main(["--model", "no such model", "--variants", "nothing"]) == 2
    assert "there are" in capsys.readouterr().err
