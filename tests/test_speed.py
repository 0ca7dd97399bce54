"""The benchmark of speed: that what it compares with is the reference, and that it counts and prints rightly."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import PROMPT
from PIL import Image
from safetensors.torch import save_file

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step
from nulltext.inversion import optimise
from nulltext.pivot import ddim_invert

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
batches: Any = pytest.importorskip("batches")
front: Any = pytest.importorskip("front")
large_models: Any = pytest.importorskip("large_models")
laws: Any = pytest.importorskip("laws")
methods: Any = pytest.importorskip("methods")
pivots: Any = pytest.importorskip("pivots")
reference: Any = pytest.importorskip("reference")
shapes: Any = pytest.importorskip("shapes")
speed: Any = pytest.importorskip("speed")
step_lengths: Any = pytest.importorskip("step_lengths")
subjects: Any = pytest.importorskip("subjects")
variants: Any = pytest.importorskip("variants")


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
        settings = replace(settings, steps=3, pivot_tolerance=0.0)
        backbone.forwards = backbone.backwards = 0
        if run is methods.run_ours:
            run(backbone, _subject(backbone), 3, settings)
        else:
            run(backbone, _subject(backbone), 3)
        seconds = shapes.seconds_of(units, settings, shapes.longest_pivot(settings), backbone.backwards)
        assert seconds == backbone.forwards + backbone.backwards


def test_a_whole_comparison_runs_and_writes(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(tiny_sd), "--pictures", "1", "--methods", "default"]
    assert speed.main([*options, "--out", str(tmp_path / "speed")]) == 0
    assert "| ours, the default |" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "speed.json").read_text())["methods"]
    t, n = methods.DEFAULT.steps, methods.DEFAULT.inner_steps
    assert 2 * t <= found["forwards"][0] <= shapes.longest_pivot(methods.DEFAULT) + t + n * t
    assert found["backwards"][0] <= n * t
    assert "| ours, the default |" in (tmp_path / "speed.md").read_text()


def _tiny_unet(tmp_path: Path, tiny_sd: Path) -> str:
    """Its config alone."""
    (tmp_path / "config.json").write_text((tiny_sd / "unet/config.json").read_text())
    return str(tmp_path / "config.json")


def test_rows_of_a_shape_and_what_they_say(
    in_this_process: None, tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, shape = tmp_path / "shape", _tiny_unet(tmp_path, tiny_sd)
    rows = ["reference", "ours_fp32", "ours_bf16_checkpointing"]
    assert speed.main(["--shape", shape, "--repeats", "1", "--out", str(out), "--rows", *rows]) == 0
    found = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["name"] for row in found] == rows
    for row in found:
        assert min(row[name] for name in ("forward", "pair", "gradient", "stem", "peak_bytes")) > 0
        assert row["pair_gradient"] == 0 and len(row["minutes"]) == (1 if row["name"] == "reference" else 3)
    printed = capsys.readouterr().out
    assert (
        "- ours_fp32 against the reference: `paper`" in printed and "| ours_bf16_checkpointing |" in printed
    )


def test_a_row_that_finds_no_room_is_told_in_a_line(
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    tiny_sd: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def too_large(*_: Any) -> None:
        torch.empty(1 << 34, dtype=torch.uint8)  # 16 GiB

    monkeypatch.setattr(shapes, "memory_bound", lambda: 1 << 30)
    monkeypatch.setattr(shapes, "_measure", too_large)
    assert speed.main(["--shape", _tiny_unet(tmp_path, tiny_sd), "--rows", "reference"]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("- reference"))
    assert "found no room: its weights and their gradients take" in line and "1.0 GiB were free" in line


def test_finished_rows_are_not_measured_again(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    options = ["--model", str(tiny_sd), "--pictures", "1", "--methods", "ddim", "--keep", str(kept)]
    kept.mkdir()
    assert speed.main([*options, "--only", "ddim", "--to", str(kept / "ddim.json")]) == 0
    monkeypatch.setattr(speed, "measure", None)
    assert speed.main(options) == 0
    assert "| DDIM inversion, guided walk back | 1 | 150 | 0 |" in capsys.readouterr().out


def test_the_large_shapes_have_their_models_sizes() -> None:
    """As the model cards have them, in millions."""
    for shape, millions in (("sd15", 860), ("sdxl", 2567)):
        unet = large_models.random_unet(shape, torch.float32, "meta")
        assert round(unet.num_parameters() / 1e6) == millions


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures the rows of a table here, which spares a start of Python for each."""

    def measure_here(name: str, argv: list[str], folder: Path) -> tuple[Any, Path]:
        to = folder / f"{name}.json"
        speed.measure_here(speed.parse([*argv, "--only", name, "--to", str(to)]))
        return json.loads(to.read_text()), to.with_suffix(".safetensors")

    for module in (batches, laws, shapes):
        monkeypatch.setattr(module, "measure_apart", measure_here)


def test_batches_are_the_same_pictures_as_one_by_one(
    in_this_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the shipped model: refining the pivot of random weights need not settle, and enlarges roundings."""
    out = tmp_path / "batches"
    assert speed.main(["--batches", "2", "--repeats", "1", "--out", str(out)]) == 0
    one, two = json.loads(out.with_suffix(".json").read_text())["batches"]
    assert (one["size"], two["size"], one["pictures"], two["pictures"]) == (1, 2, 2, 2)
    assert one["apart"] == {"null": 0, "z_0": 0}
    assert two["apart"]["null"] < 1e-5 and two["apart"]["z_0"] < 1e-4  # another order: more than 1
    t = methods.DEFAULT.steps
    longest = shapes.longest_pivot(methods.DEFAULT)
    assert 2 * t <= one["evaluations"] <= two["evaluations"] <= longest + t + 2 * t
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
        inversions, t = law["pictures"], law["steps"]
        pivot = law["forwards"] - law["backwards"] - t * inversions
        assert t * inversions <= pivot <= shapes.longest_pivot(replace(methods.DEFAULT, steps=t)) * inversions
        assert 0 <= law["backwards"] <= law["steps"] * inversions
        assert f"| {law['steps']} | {law['pictures']} | {law['side']} x {law['side']} |" in printed


def test_the_front_has_each_choice_and_a_name_for_each_variant() -> None:
    names = [variant.name for variant in variants.VARIANTS]
    assert len(set(names)) == len(names)
    default = next(v for v in variants.VARIANTS if v.name.endswith("(default)"))
    assert default.settings == methods.DEFAULT and not default.walk and not default.pivot
    chosen = [v.settings for v in variants.VARIANTS]
    assert {s.fixed_point_iterations for s in chosen} == {0, 1, 2, methods.DEFAULT.fixed_point_iterations}
    assert {s.pivot_tolerance for s in chosen} == {0.0, 1e-4, 1e-5, 1e-6}
    assert {s.start for s in chosen} == {0.0, 0.5, 1.0}
    assert {s.inner_steps for s in chosen} == {0, 1, 2, 3, 10}
    assert {s.tolerance for s in chosen} == {0.0, 1e-5}
    assert {steps for v in variants.VARIANTS for steps in v.steps} == {10, 20, 25, 50}
    assert {v.walk for v in variants.VARIANTS} == set(variants.WALKS)
    assert {v.pivot for v in variants.VARIANTS} == {"", *variants.PIVOTS}


@pytest.mark.parametrize("walk", ["", "exact length", "2 directions", "length carried"])
def test_a_picture_counts_in_a_batch_what_it_takes_by_itself(tiny_sd: Path, walk: str) -> None:
    """Each has its own number of inner steps: the tolerance lies amid their losses."""
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels[1] *= 0.1
    prompts = [PROMPT, "a", "an old barn"]
    schedule, cond = backbone.schedule(5), backbone.embed_prompt(prompts)
    found = ddim_invert(backbone, schedule, backbone.encode_image(pixels), cond, fixed_point_iterations=1)
    records = [record for record, _ in optimise(backbone, schedule, found, cond, methods.DEFAULT)]
    settings = replace(methods.DEFAULT, tolerance=float(torch.stack([r.losses[0] for r in records]).median()))
    variant = [variants.Variant(settings, (5,), walk)]
    (whole,) = front.measure(backbone, pixels, prompts, 2, variant)
    alone = []
    for k in range(3):
        pair = [k, k]  # a drawing and a photograph
        (point,) = front.measure(backbone, pixels[pair], [prompts[k]] * 2, 1, variant)
        alone.append(point)
    assert len({point.forwards for point in alone}) > 1
    for name in ("forwards", "backwards"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(p, name) for p in alone) / 3)


@pytest.mark.parametrize("walk", [w for w in variants.WALKS if "first" not in w and w != "second order"])
def test_every_way_of_learning_brings_a_step_closer_to_the_pivot(tiny_sd: Path, walk: str) -> None:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = replace(methods.DEFAULT, start=0.0, tolerance=0.0, inner_steps=2)
    z_0, cond, schedule = (
        backbone.encode_image(pixels),
        backbone.embed_prompt([PROMPT, "a"]),
        backbone.schedule(1),
    )
    pivot = ddim_invert(backbone, schedule, z_0, cond)
    off = []
    for steps in (0, 2):
        chosen = replace(settings, inner_steps=steps)
        end = variants.WALKS[walk][0](backbone, schedule, pivot, cond, chosen).z_0
        off.append((end - z_0).square().mean(dim=(1, 2, 3)))
    assert (off[1] < off[0]).all()


def _one_picture(tiny_sd: Path, steps: int) -> tuple[Backbone, Schedule, torch.Tensor, TextEmbedding]:
    backbone = Backbone.from_pretrained(str(tiny_sd))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cond, schedule = backbone.embed_prompt([PROMPT]), backbone.schedule(steps)
    return backbone, schedule, ddim_invert(backbone, schedule, backbone.encode_image(pixels), cond), cond


def test_a_penalty_holds_the_embeddings_near_the_empty_prompt(tiny_sd: Path) -> None:
    settings = replace(methods.DEFAULT, start=0.5, tolerance=0.0)
    backbone, schedule, pivot, cond = _one_picture(tiny_sd, 3)
    empty, away = backbone.embed_prompt("").sequence, []
    for penalty in (0.0, 1e2):
        inner = partial(step_lengths.gauss_newton, 1)
        null = step_lengths.walk(backbone, schedule, pivot, cond, settings, inner, penalty).null
        away.append(float((null - empty).norm()))
    assert away[1] < 0.1 * away[0]


def test_after_the_first_share_the_last_embeddings_stay(tiny_sd: Path) -> None:
    """And a share of all is the program's own walk."""
    settings = replace(methods.DEFAULT, start=0.0, tolerance=0.0)
    backbone, schedule, pivot, cond = _one_picture(tiny_sd, 5)
    whole = variants.WALKS[""][0](backbone, schedule, pivot, cond, settings)
    for share, learned in ((1.0, 5), (0.4, 2)):
        backbone.backwards = 0
        found = step_lengths.first_share(backbone, schedule, pivot, cond, settings, share)
        assert torch.equal(found.null[:learned], whole.null[:learned]) and backbone.backwards == learned
        assert all(torch.equal(null, found.null[learned - 1]) for null in found.null[learned:])
        assert torch.equal(found.z_0, whole.z_0) == (share == 1)


class Linear:
    """A network whose noise is linear in the text: eps = A null."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.forwards, self.backwards = matrix, 0, 0

    def predict_noise(self, z: torch.Tensor, t: Any, text: TextEmbedding) -> torch.Tensor:
        self.forwards += len(z)
        eps = (text.sequence.flatten(1) @ self.matrix.T).reshape(z.shape)
        if eps.requires_grad:
            eps.register_hook(self.count)
        return eps

    def count(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


def _timestep(matrix: torch.Tensor, wanted: torch.Tensor, penalty: float = 0.0) -> Any:
    batch, (_, n) = len(wanted), matrix.shape
    backbone, null = Linear(matrix), torch.zeros(batch, 1, n, dtype=matrix.dtype, requires_grad=True)
    cond, z = TextEmbedding(null.detach()), torch.zeros_like(wanted)
    eps = backbone.predict_noise(z, 0, cond.with_sequence(null))
    empty, step = torch.ones(batch, 1, n, dtype=matrix.dtype), torch.tensor(0.5, dtype=matrix.dtype)
    active = torch.ones(batch, dtype=torch.bool)
    return step_lengths.Timestep(
        backbone, z, torch.tensor(0), cond, null, eps, wanted, empty, step, penalty, active
    )


def test_conjugate_gradients_find_the_least_squares_solution() -> None:
    """With as many directions as unknowns; with a penalty that of the normal equations."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    wanted = torch.randn(2, 4, 2, 2, generator=generator, dtype=torch.float64)
    for penalty in (0.0, 0.1):
        timestep = _timestep(matrix, wanted, penalty)
        weight = float(timestep.weight)
        assert weight == pytest.approx(penalty * 16 / 3 / 0.25)
        d = step_lengths.conjugate_gradients(timestep, 3).flatten(1)
        left = matrix.T @ matrix + weight * torch.eye(3, dtype=torch.float64)
        right = wanted.flatten(1) @ matrix + weight
        torch.testing.assert_close(d, torch.linalg.solve(left, right.T).T, rtol=1e-6, atol=1e-8)
        assert (timestep.backbone.forwards, timestep.backbone.backwards) == (8, 6)


def test_a_carried_length_needs_one_probe_and_is_barzilai_and_borweins() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    wanted = torch.randn(1, 4, 2, 2, generator=generator, dtype=torch.float64)
    settings = replace(methods.DEFAULT, inner_steps=2, tolerance=0.0)
    x, r = torch.zeros(3, dtype=torch.float64), wanted.flatten()
    expected = {}
    for short in (False, True):
        x = torch.zeros(3, dtype=torch.float64)
        g = matrix.T @ r
        length = g @ g / (matrix @ g).square().sum()
        x = length * g
        new = matrix.T @ (r - matrix @ x)
        dx, dg = x, g - new
        expected[short] = x + new * (dx @ dg / (dg @ dg) if short else dx @ dx / (dx @ dg))
    for short in (False, True):
        timestep = _timestep(matrix, wanted)
        bend = step_lengths.CarriedLength(short=short)
        bend(timestep, settings)
        torch.testing.assert_close(timestep.null.detach().flatten(), expected[short])
        assert (timestep.backbone.forwards, timestep.backbone.backwards) == (1 + 1 + 2, 2)
        following = _timestep(matrix, wanted)
        bend(following, settings)
        assert (following.backbone.forwards, following.backbone.backwards) == (1 + 2, 2)


class Gaussian:
    """The perfect network for pictures that are white noise: eps = sqrt(1 - alpha_bar) z."""

    device = torch.device("cpu")

    def __init__(self, schedule: Schedule) -> None:
        self.alpha = dict(zip(schedule.timesteps.tolist(), schedule.alpha_from.double(), strict=True))
        self.forwards = 0

    def predict_noise(self, z: torch.Tensor, t: torch.Tensor, text: Any) -> torch.Tensor:
        self.forwards += len(z)
        alpha = torch.stack([self.alpha[k] for k in t.reshape(-1).tolist()]).reshape(-1, 1, 1, 1)
        return (1 - alpha).sqrt() * z


def _gaussian(tiny_sd: Path, steps: int) -> tuple[Gaussian, Schedule, torch.Tensor, TextEmbedding]:
    schedule = Backbone.from_pretrained(str(tiny_sd)).schedule(steps)
    schedule = replace(schedule, alpha_from=schedule.alpha_from.double(), alpha_to=schedule.alpha_to.double())
    generator = torch.Generator().manual_seed(0)
    z_0 = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    z_0[1] *= 0.01
    return Gaussian(schedule), schedule, z_0, TextEmbedding(torch.zeros(2, 1, 1))


def _off_the_walk(backbone: Gaussian, schedule: Schedule, pivot: torch.Tensor) -> torch.Tensor:
    """How far a step of the walk lands from the pivot (T, B), mean square."""
    landed = [
        ddim_step(pivot[i], backbone.predict_noise(pivot[i], schedule.timesteps[i], None), *levels)
        for i, levels in enumerate(zip(schedule.alpha_from, schedule.alpha_to, strict=True))
    ]
    return (torch.stack(landed) - pivot[1:]).square().mean(dim=(2, 3, 4))


def test_the_secant_is_exact_after_two_answers_where_noise_is_linear_in_the_latents(tiny_sd: Path) -> None:
    backbone, schedule, z_0, cond = _gaussian(tiny_sd, 5)
    plain = ddim_invert(backbone, schedule, z_0, cond, fixed_point_iterations=3)
    mixed = pivots.secant(backbone, schedule, z_0, cond, 1e-20, 3)
    assert _off_the_walk(backbone, schedule, mixed).max() < 1e-12
    assert _off_the_walk(backbone, schedule, plain).max() > 1e-9


def test_sweeps_at_once_come_to_the_pivot_that_the_walk_meets(tiny_sd: Path) -> None:
    backbone, schedule, z_0, cond = _gaussian(tiny_sd, 5)
    off = []
    for sweeps, correct in ((1, False), (1, True), (40, False)):
        backbone.forwards = 0
        pivot = pivots.at_once(backbone, schedule, z_0, cond, sweeps, correct)
        assert backbone.forwards == 2 * (1 + 5 * sweeps + 5 * correct)
        off.append(_off_the_walk(backbone, schedule, pivot).max())
    assert off[0] > off[1] > off[2] and off[2] < 1e-12


def _evenly_spaced(tiny_sd: Path, steps: int) -> tuple[Gaussian, Schedule, torch.Tensor, TextEmbedding]:
    """The same with levels that are evenly spaced in log sigma."""
    _, schedule, z_0, cond = _gaussian(tiny_sd, steps)
    alpha = torch.sigmoid(torch.linspace(-3, 3, steps + 1, dtype=torch.float64))
    schedule = replace(schedule, alpha_from=alpha[:-1], alpha_to=alpha[1:])
    return Gaussian(schedule), schedule, z_0, cond


def test_the_second_order_is_of_second_order(tiny_sd: Path) -> None:
    """Here the exact trajectory stands still; twice the steps leave a quarter of the error, by DDIM half.

    So it is in the limit; between 10 steps and 20 it is a third.
    """
    errors: dict[str, list[float]] = {"second order": [], "DDIM": []}
    for steps in (20, 40, 80):
        backbone, schedule, z_0, cond = _evenly_spaced(tiny_sd, steps)
        second = pivots.SecondOrder(schedule, backbone.device)
        for name, pivot in (
            ("second order", second.pivot(backbone, z_0, cond, 8, steps + 1)),
            ("DDIM", ddim_invert(backbone, schedule, z_0, cond, fixed_point_iterations=8)),
        ):
            errors[name].append(float((pivot[0] / z_0 - 1).abs().max()))
    for name, factor in (("second order", 4), ("DDIM", 2)):
        first, middle, last = errors[name]
        assert middle < 1.3 / factor * first and last < 1.2 / factor * middle
    assert errors["DDIM"][-1] > 5 * errors["second order"][-1]


def test_the_second_orders_walk_meets_its_pivot_after_enough_sweeps(tiny_sd: Path) -> None:
    backbone, schedule, z_0, cond = _evenly_spaced(tiny_sd, 10)
    second, off = pivots.SecondOrder(schedule, backbone.device), []
    backbone.embed_prompt = lambda prompt: cond[:1]  # type: ignore[attr-defined]
    for sweeps in (1, 2, 11):
        pivot = second.pivot(backbone, z_0, cond, 12, sweeps)
        end = second.walk(backbone, pivot, cond, methods.DEFAULT).z_0
        off.append(float((end - z_0).square().mean()))
    assert off[0] > off[1] > off[2] and off[2] < 1e-10


def test_the_front_is_what_no_cheaper_point_equals() -> None:
    points = [
        front.Point(name, "source", "Adam", 1, forwards, backwards, (drawn, 0.0), (photographs, 0.0), 0.5)
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
    assert rows[0] == "| dear | 1 | 30 | 20 | 50 | **40.0** (0.0) | 25.0 (0.0) | 0.50 |"
    assert rows[2] == "| worse | 1 | 20 | 10 | 30 | 15.0 (0.0) | 30.0 (0.0) | 0.50 |"


def test_the_front_prints_writes_draws_and_goes_on(
    tiny_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    out, figure = tmp_path / "front", tmp_path / "front.png"
    words = ["--model", str(tiny_sd), "--pictures", "1", "--variants", "source, N = 0, pivot 0"]
    assert front.main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    written = out.with_suffix(".json").read_text()
    points = json.loads(written)["points"]
    assert [(p["steps"], p["forwards"], p["backwards"]) for p in points] == [
        (t, 2 * t, 0) for t in (10, 20, 25, 50)
    ]
    assert "| source, N = 0, pivot 0 | 10 | 20 | 0 | 20 |" in printed
    assert printed.strip() == out.with_suffix(".md").read_text().strip()
    monkeypatch.setitem(variants.WALKS, "", ())  # which would fail if it were asked
    assert front.main([*words, "--out", str(out), "--resume"]) == 0
    assert out.with_suffix(".json").read_text() == written
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
