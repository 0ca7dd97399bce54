"""The benchmark of speed: that what it compares with is the reference, and that it counts and prints rightly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT

from nulltext.diffusion import Level, Prediction, step
from nulltext.inversion import METHODS as KNOWN
from nulltext.models import DiffusionModel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
large_models: Any = pytest.importorskip("large_models")
methods: Any = pytest.importorskip("methods")
reference: Any = pytest.importorskip("reference")
shapes: Any = pytest.importorskip("shapes")
speed: Any = pytest.importorskip("speed")
subjects: Any = pytest.importorskip("subjects")


def _subject(model: DiffusionModel) -> Any:
    pixels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return subjects.Subject.of(model, [(pixels, PROMPT)])


def test_paper_is_the_reference(tiny_sd: Path) -> None:
    """The same embeddings and latents to the bit, for the same evaluations."""
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    subject, steps = _subject(model), 5
    theirs = methods.run_named(model, subject, "reference", steps=steps)
    spent = model.forwards, model.backwards
    model.forwards = model.backwards = 0
    ours = methods.run_named(model, subject, "paper", steps=steps)
    assert (model.forwards, model.backwards) == spent
    assert torch.equal(ours.null, theirs.null) and torch.equal(ours.z_0, theirs.z_0)
    assert not torch.equal(ours.null[-1], ours.null[0])


def test_paper_has_the_references_constants() -> None:
    paper = methods.PAPER
    assert paper.steps == reference.STEPS == methods.METHODS["reference"].method.steps
    assert paper.inner_steps == reference.INNER_STEPS
    assert paper.guidance_scale == reference.GUIDANCE_SCALE
    assert paper.early_stop_loss == reference.EPSILON
    optimizer = paper.optimizer([torch.zeros(1)])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == reference.LEARNING_RATE


def test_the_reference_steps_as_diffusers_does(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    scheduler = reference.ddim_scheduler(model.scheduler_config, 50)
    theirs = reference.Reference(None, scheduler, torch.zeros(1), torch.zeros(1))
    z, eps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for t in (scheduler.timesteps[0], scheduler.timesteps[-1]):
        there = scheduler.step(eps, t, z).prev_sample
        torch.testing.assert_close(theirs.towards_picture(z, eps, t), there)
        torch.testing.assert_close(theirs.towards_noise(there, eps, t), z, rtol=1e-4, atol=1e-4)
        here, before = (Level(x.sqrt(), (1 - x).sqrt()) for x in theirs.levels(t))
        ours = step(Prediction.from_eps(eps, z, here), before)
        torch.testing.assert_close(ours, there, rtol=1e-4, atol=1e-4)


def test_the_references_weights_pile_up_gradients_and_ours_do_not(tiny_sd: Path) -> None:
    for name, piles_up in (("reference", True), ("paper", False)):
        model = DiffusionModel.from_pretrained(str(tiny_sd))
        model.denoiser.requires_grad_(piles_up)
        methods.run_named(model, _subject(model), name, steps=1)
        assert (model.denoiser.conv_in.weight.grad is not None) == piles_up


def test_a_config_gives_its_method_and_settings(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(
        "model:\n  pretrained: farmyard\n  method: negative_prompt\n  steps: 7\n  corrections: 2\n"
    )
    found = methods.method_of(config)
    assert type(found) is KNOWN["negative_prompt"] and (found.steps, found.corrections) == (7, 2)


def test_every_method_is_settings_of_one_of_the_packages(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    subject = _subject(model)
    for name, entry in methods.METHODS.items():
        assert type(entry.method) in KNOWN.values()
        outcome = methods.run_named(model, subject, name, steps=2)
        assert outcome.z_0.shape == subject.z_0.shape and outcome.null.shape[:2] == (2, 1)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the rows of a table here, which spares a start of Python for each."""

    def measure_here(name: str, argv: list[str], folder: Path) -> tuple[Any, Path]:
        to = folder / f"{name}.json"
        speed.measure_here(speed.parse([*argv, "--only", name, "--to", str(to)]))
        return json.loads(to.read_text()), to.with_suffix(".safetensors")

    for module in (speed, shapes):
        monkeypatch.setattr(module, "measure_apart", measure_here)


def test_a_whole_comparison_runs_and_writes(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own."""
    options = ["--model", str(tiny_sd), "--drawings", "1", "--photographs", "0", "--methods", "ddim"]
    assert speed.main([*options, "--out", str(tmp_path / "speed")]) == 0
    assert "| DDIM | 1 | 150 | 0 | 150 | - |" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "speed.json").read_text())["methods"]
    assert (found["forwards"], found["backwards"], found["kinds"]) == ([150], [0], ["drawings"])
    assert found["peak_bytes"] > 0 and found["seconds"][0] > 0
    assert "Drawings:" in (tmp_path / "speed.md").read_text()


def test_the_table_has_ratios_to_the_reference() -> None:
    def report(method: str, forwards: int, seconds: float) -> Any:
        numbers = {"psnr": [40.0, 30.0], "below_bound": [0.1, 0.3], "backwards": [10, 10]}
        return speed.Report(method, ["drawings"] * 2, [forwards] * 2, seconds=[seconds] * 2, **numbers)

    _, _, first, second = speed.table([report("reference", 90, 8.0), report("default", 15, 0.5)]).splitlines()
    assert first.split(" | ")[2:6] == ["90", "10", "100", "1.0"]
    assert second.split(" | ")[2:10] == [
        "15",
        "10",
        "25",
        "1/4.0",
        "35.0 (30.0)",
        "0.20 (0.30)",
        "0.50",
        "1/16.0",
    ]


def test_drawings_and_photographs_have_tables_of_their_own(
    in_this_process: None, tiny_sd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    options = ["--model", str(tiny_sd), "--drawings", "3", "--photographs", "1", "--batch", "2"]
    assert speed.main([*options, "--methods", "negative_prompt"]) == 0
    drawings, photographs = capsys.readouterr().out.split("Photographs:")
    assert (
        "| negative prompt | 3 | 100 | 0 |" in drawings and "| negative prompt | 1 | 100 | 0 |" in photographs
    )


def test_finished_rows_are_not_measured_again(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    options = ["--model", str(tiny_sd), "--drawings", "1", "--photographs", "0", "--methods", "ddim"]
    kept.mkdir()
    assert speed.main([*options, "--only", "ddim", "--to", str(kept / "ddim.json")]) == 0
    monkeypatch.setattr(speed, "measure", None)
    assert speed.main([*options, "--keep", str(kept)]) == 0
    assert "| DDIM | 1 | 150 | 0 |" in capsys.readouterr().out


def test_times_of_parts_follow_the_counts() -> None:
    """A second for a forward and two for a gradient turn counts into seconds."""
    units = shapes.Units("ours_fp32", 1, 1.0, 2.0, 1, "")
    for counts in (shapes.MOST, (50, 0)):
        assert 60 * shapes.minutes_of(units, counts) == sum(counts)
    assert shapes.MOST == (700, 500)


def test_rows_of_a_shape(
    in_this_process: None,
    tiny_sd: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "counts_of_default", lambda: (50, 10))
    out, rows = tmp_path / "shape", ["reference", "ours_fp32", "ours_checkpointing_bf16"]
    words = ["--shape", str(tiny_sd / "unet"), "--repeats", "1", "--out", str(out), "--rows", *rows]
    assert speed.main(words) == 0
    found = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["name"] for row in found] == rows
    assert all(min(row[name] for name in ("forward", "gradient", "peak_bytes")) > 0 for row in found)
    printed = capsys.readouterr().out.splitlines()
    assert "(1/1.0) |" in printed[-4] and all(line.count("(1/") == 2 for line in printed[-4:-1])


def test_a_shape_that_is_not_there_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["--shape", "sd99", "--only", "ours_fp32", "--to", "none.json"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no UNet config sd99; give sd15, sdxl, sd35, or a unet folder\n"
    )


def test_the_large_shapes_have_their_models_sizes() -> None:
    """As the model cards have them, in millions; sd35's has a table of 226 million positions besides."""
    for shape, millions in (("sd15", 860), ("sdxl", 2567), ("sd35", 2243)):
        unet = large_models.random_network(shape, torch.float32, "meta")
        assert round(unet.num_parameters() / 1e6) == millions


def test_the_benchmarks_stay_small() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
    lengths = {file.name: len(file.read_text().splitlines()) for file in files}
    assert sum(lengths.values()) <= 1500 and max(lengths.values()) <= 300
