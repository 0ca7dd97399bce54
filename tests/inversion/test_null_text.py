"""The laws of Algorithm 1, on tiny random models of each family."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import PROMPT
from quick_inversion import random_picture
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from nulltext.data.picture import Picture
from nulltext.diffusion import guide, step
from nulltext.errors import UserError
from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
from nulltext.inversion import NullText, State, StepRecord
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert, run
from nulltext.inversion.methods.learning import NonFiniteLoss
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.models import Conditioning, DiffusionModel
from nulltext.pixels import from_image

PLAIN = NullText(
    steps=4,
    inner_steps=3,
    start=0.0,
    tolerance=0.0,
    fixed_point_iterations=0,
    pivot_tolerance=0.0,
    keep_best=False,
    last_factor=1,
    shortest_step=0.0,
    learning_rate_decay=0.01,
    optimizer=partial(NormalisedGradient, lr=0.002),
)


def _begin(model: DiffusionModel, method: NullText, *seeds: int) -> State:
    pictures = [random_picture(seed=seed, prompt=PROMPT) for seed in seeds or (0,)]
    z_0 = model.encode(torch.stack([p.pixels for p in pictures]))
    return method.begin(model, z_0, model.embed([p.prompt for p in pictures]))


def _run(model: DiffusionModel, method: NullText, state: State) -> list[StepRecord]:
    records: list[StepRecord] = []
    run(method, model, state, records.append)
    return records


def _rows(state: State, rows: slice) -> State:
    """The same inversion of some of its pictures."""
    return replace(
        state,
        cond=state.cond[rows],
        null_text=state.null_text[rows],
        pivot=state.pivot[:, rows],
        z=state.pivot[0, rows],
        null=[null[rows].clone() for null in state.null],
        memory={},
    )


def test_every_family_inverts_saves_and_reconstructs(tiny: Path, tmp_path: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny))
    for height, width in ((32, 32), (32, 48)):
        picture = random_picture(height, width, prompt=PROMPT)
        method = NullText(steps=4, inner_steps=2)
        inversion = invert(model, picture, method=method)
        assert inversion.null_embeddings.shape[:2] == (4, 77)
        inversion.save(tmp_path / "inversion.safetensors")
        again = Inversion.load(tmp_path / "inversion.safetensors")
        again.check(model)
        assert torch.equal(again.null_embeddings, inversion.null_embeddings)
        assert again.size == (height, width)
        assert again.settings == inversion.settings
        z_0 = method.replay(model, again).trajectory[-1]
        mse = (model.decode(z_0)[0] - picture.pixels).square().mean() / 4
        assert -10 * mse.log10().item() == pytest.approx(again.psnr, abs=0.01)


def test_the_optimised_embedding_is_never_worse(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    ends = []
    for inner_steps in (0, 10):
        method = replace(PLAIN, inner_steps=inner_steps)
        state = _begin(model, method)
        _run(model, method, state)
        ends.append((state.z - state.pivot[-1]).square().mean().item())
    assert ends[1] < ends[0]


def test_at_guidance_one_the_embeddings_stay(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = replace(PLAIN, inner_steps=5, guidance_scale=1.0)
    state = _begin(model, method)
    for record in _run(model, method, state):
        assert torch.equal(record.null, state.null_text.sequence)
        assert record.losses.shape == (0, 1)


def test_a_batch_equals_single_runs_also_with_early_stop(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    begun = _begin(model, PLAIN, 1, 2)
    method = replace(PLAIN, steps=4, inner_steps=4, early_stop_loss=_middle_loss(model, begun))
    together = _run(model, method, _rows(begun, slice(0, 2)))
    taken = torch.stack([record.inner_steps for record in together])
    assert (taken[:, 0] != taken[:, 1]).any()  # the pictures stop at different times
    for b in range(2):
        alone = _run(model, method, _rows(begun, slice(b, b + 1)))
        for record, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(record.null[b], expected.null[0], rtol=0, atol=1e-5)
            assert record.inner_steps[b] == expected.inner_steps[0]


def _middle_loss(model: DiffusionModel, begun: State) -> float:
    """A loss between those of the two pictures at some inner step."""
    records = _run(model, replace(PLAIN, inner_steps=4), _rows(begun, slice(0, 2)))
    return torch.cat([record.losses for record in records])[2].mean().item()


def test_evaluations_are_counted_per_latent(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    state = _begin(model, PLAIN, 1, 2)
    assert (model.forwards, model.backwards) == (2 * 4, 0)
    _run(model, PLAIN, state)
    assert model.forwards == 2 * 4 + 2 * 4 * (1 + 3 + 1)
    assert model.backwards == 2 * 4 * 3


def test_from_the_source_prompt_both_predictions_are_one_forward(tiny: Path) -> None:
    """Their graph serves the first inner step; where the loss is small enough, also the guided step."""
    model = DiffusionModel.from_pretrained(str(tiny))
    for tolerance, forwards, backwards in ((0.0, 4 * 3, 4 * 2), (1e9, 4, 0)):
        method = replace(PLAIN, start=1.0, inner_steps=2, tolerance=tolerance, fixed_point_iterations=1)
        state = _begin(model, method)
        model.forwards = model.backwards = 0
        records = _run(model, method, state)
        assert (model.forwards, model.backwards) == (forwards, backwards)
        assert all(torch.equal(r.null, state.cond.sequence) == (tolerance > 0) for r in records)
        assert all(len(record.losses) >= 1 for record in records)


def test_within_the_tolerance_a_picture_stays_as_it_is(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    begun = _begin(model, PLAIN, 1, 2)
    tolerance = _middle_loss(model, begun)
    method = replace(PLAIN, tolerance=tolerance, inner_steps=4, keep_best=True)
    for record in _run(model, method, _rows(begun, slice(0, 2))):
        for b in range(2):
            taken = int(record.inner_steps[b])
            assert (record.losses[:taken, b] >= tolerance).all()
            left = (record.z - begun.pivot[record.step + 1])[b].square().mean()
            assert left <= record.losses[:, b].min() * (1 + 1e-4)  # the best embedding counts


def test_the_best_embedding_counts_and_costs_nothing_more(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = replace(PLAIN, inner_steps=5, keep_best=True, optimizer=partial(Adam, lr=1.0))  # far too long
    state = _begin(model, method, 1, 2)
    model.forwards = 0
    for record in _run(model, method, state):
        left = (record.z - state.pivot[record.step + 1]).square().mean(dim=(1, 2, 3))
        assert (left <= record.losses.amin(0) * (1 + 1e-4)).all()
    assert model.forwards == 2 * 4 * (1 + 1 + 5)


def test_the_default_learns_from_the_empty_prompt(tiny: Path) -> None:
    """The first loss is the empty prompt's; every timestep ends no worse than it starts; the lengths carry over."""
    model = DiffusionModel.from_pretrained(str(tiny))
    method = NullText(steps=4, inner_steps=4, shortest_step=0.0)
    state = _begin(model, method, 1, 2)
    empty = model.embed("", (32, 32)).sequence
    assert torch.equal(state.null[0], empty.expand_as(state.null[0]))
    records = _run(model, method, state)
    assert set(state.memory) >= {"v", "length"}
    for record in records:
        left = (record.z - state.pivot[record.step + 1]).square().mean(dim=(1, 2, 3))
        assert (left <= record.losses[0] * (1 + 1e-4)).all() and not torch.equal(record.null, empty)


@pytest.mark.filterwarnings("ignore:.*CPU Autocast only supports")
def test_in_a_batch_the_default_learns_as_alone() -> None:
    """In 64 bits: in 32, rounding differs between batches and between CPUs, and conjugate steps enlarge it."""
    model = DiffusionModel.from_pretrained("farmyard")
    model.denoiser.double()
    network = model.network

    def exact(z: Tensor, t: Tensor, text: Conditioning) -> Tensor:
        return network(z.double(), t, replace(text, sequence=text.sequence.double())).float()

    model.network = exact
    method = NullText(steps=6, inner_steps=3)
    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[:2]]
    z_0 = model.encode(torch.stack([from_image(draw(scene, 64)) for scene in scenes]))
    cond, ends = model.embed([caption(scene) for scene in scenes]), []
    for rows in (slice(0, 2), slice(0, 1), slice(1, 2)):
        state = method.begin(model, z_0[rows], cond[rows])
        _run(model, method, state)
        ends.append(state.z)
    assert (ends[0] - torch.cat(ends[1:])).abs().max() < 1e-5


def test_a_step_that_could_correct_nothing_takes_no_inner_step(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = NullText(steps=10, inner_steps=2)
    taken = [int(record.inner_steps[0]) for record in _run(model, method, _begin(model, method))]
    assert taken == [2] * 8 + [6, 0]  # the last that learns takes three times as many
    every = replace(method, shortest_step=0.0, last_factor=1)
    assert [int(r.inner_steps[0]) for r in _run(model, every, _begin(model, every))] == [2] * 10


@pytest.mark.parametrize("optimizer", [Adam, NormalisedGradient])
def test_the_step_follows_a_hand_written_one(tiny_sd: Path, optimizer: type[Optimizer]) -> None:
    """Adam's first step moves each entry by lr against the sign of its gradient, the other by lr on average."""
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    method = replace(PLAIN, inner_steps=1, optimizer=partial(optimizer, lr=0.01))
    state = _begin(model, method)
    schedule, z, start = state.schedule, state.pivot[0], state.null_text.sequence
    probe = nn.Parameter(start.clone())
    null = model.predict(z, schedule, 0, state.null_text.with_sequence(probe))
    cond = model.predict(z, schedule, 0, state.cond)
    loss = (step(guide(null, cond, 7.5), schedule.there(0)) - state.pivot[1]).square().mean()
    loss.backward()
    record = method.step(model, state, 0)
    assert probe.grad is not None
    length = probe.grad.abs() + 1e-8 if optimizer is Adam else probe.grad.square().mean().sqrt()
    torch.testing.assert_close(record.null, start - 0.01 * probe.grad / length, rtol=0, atol=1e-5)
    assert record.losses.item() == pytest.approx(loss.item(), rel=1e-4)


def test_half_precision_converges_as_fp32_does(tiny_sd: Path) -> None:
    """True fp16 and bf16 weights and arithmetic; fp16 needs the loss scale."""
    ends = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        model = DiffusionModel.from_pretrained(str(tiny_sd), precision=precision)
        method = replace(PLAIN, inner_steps=8)
        record = _run(model, method, _begin(model, method))[-1]
        assert record.null.dtype == torch.float32
        ends[precision] = (record.losses[-1] / record.losses[0]).item()
    assert ends["16-mixed"] < 1 and ends["bf16-mixed"] < 1
    assert ends["16-mixed"] == pytest.approx(ends["32-true"], abs=0.1)


def test_inner_steps_see_the_changed_embedding_in_half_precision(tiny_sd: Path) -> None:
    """With autocast's cache on, all inner losses of a step would be the same."""
    model = DiffusionModel.from_pretrained(str(tiny_sd), precision="bf16-mixed")
    method = replace(PLAIN, steps=2, inner_steps=4, learning_rate_decay=0.0)
    state = _begin(model, method)
    with torch.autocast("cpu", torch.bfloat16):
        record = method.step(model, state, 0)
    assert len(set(record.losses[:, 0].tolist())) == 4


def test_three_bad_losses_end_the_run(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    state = _begin(model, PLAIN)
    state.pivot[1] = float("nan")
    with pytest.raises(NonFiniteLoss, match="3 times in a row"):
        _run(model, PLAIN, state)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 1001),
        ("inner_steps", -1),
        ("start", 1.5),
        ("fixed_point_iterations", -1),
        ("fixed_point_iterations", 101),
        ("pivot_tolerance", -1.0),
        ("tolerance", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        NullText(**{field: value})


def test_a_picture_may_be_given_in_many_ways(tiny_sd: Path, tmp_path: Path) -> None:
    """A file, an image, an array, a tensor and a Picture of the same pixels give the same inversion."""
    from nulltext.pixels import to_image

    model = DiffusionModel.from_pretrained(str(tiny_sd))
    image = to_image(random_picture().pixels)
    image.save(tmp_path / "noise.png")
    array = torch.from_numpy(__import__("numpy").array(image))
    pixels = array.permute(2, 0, 1).float() / 127.5 - 1
    given = [tmp_path / "noise.png", str(tmp_path / "noise.png"), image, array.numpy(), pixels]
    given.append(Picture(pixels, PROMPT, "noise"))
    method = replace(PLAIN, steps=2, inner_steps=1)
    noises = [invert(model, one, PROMPT, method).noise for one in given]
    for noise in noises[1:]:
        torch.testing.assert_close(noise, noises[0], rtol=0, atol=1e-6)
