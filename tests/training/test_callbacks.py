"""What a run leaves behind: files, curves, the sheet, and a checkpoint that never runs ahead of them."""

import csv
import io
import json
import math
import shlex
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.metrics import peak_signal_noise_ratio
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nulltext.cli import main
from nulltext.errors import UserError
from nulltext.inversion import NullText, StepRecord, base
from nulltext.metrics.pixel import ssim
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.results import History, add_row, closing, read_rows, summary
from nulltext.training import progress
from nulltext.training.callbacks import Artifacts, Checkpointer
from nulltext.training.curves import ABOUT, Curves, written_events

T, N = 4, 2
SETTINGS = [
    "--model.steps",
    str(T),
    "--model.inner_steps",
    str(N),
    "--model.tolerance",
    "0",
    "--model.start",
    "0",
    "--model.last_factor",
    "1",
    "--model.shortest_step",
    "0",
    "--model.keep_best",
    "false",
    "--model.learning_rate_decay",
    "0.01",
    "--model.optimizer",
    "nulltext.inversion.methods.optimizers.NormalisedGradient",
    "--data.batch_size",
    "1",
]
KEYS = {
    *(f"{metric}_{way}" for metric in ("psnr", "ssim") for way in ("vae", "ddim", "null_text")),
    "psnr_null_text_to_vae", "latent_mse", "inner_steps", "unet_forwards", "unet_backwards", "seconds_pivot",
    "seconds_optimisation", "seconds_total", "peak_memory_bytes", "settings",
}  # fmt: skip


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("sheep", 0), ("cow", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(f"{name}.png")
    return tmp_path


def fit(tiny, *words):
    images = ["--data.image", "sheep.png", "--data.prompt", "a sheep"]
    return main(["fit", "--model.pretrained", str(tiny), *SETTINGS, *images, *words])


def events(run):
    """{tag: [(step, value), ...]} of a run folder, by step: files of one second are read in no useful order."""
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    scalars = {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}
    found = {tag: sorted((event.step, event.value) for event in values) for tag, values in scalars.items()}
    return found, {tag: [e.step for e in accumulator.Images(tag)] for tag in accumulator.Tags()["images"]}


def test_metrics_are_those_of_the_pictures_that_were_written(room, tiny_sd):
    assert fit(tiny_sd) == 0
    folder = Path("lightning_logs/version_0/sheep")
    numbers = json.loads((folder / "metrics.json").read_text())
    assert numbers.keys() >= KEYS
    files = {"vae": "vae", "ddim": "ddim", "null_text": "reconstruction"}
    original = np.asarray(Image.open(folder / "original.png"))
    for way, name in files.items():
        picture = np.asarray(Image.open(folder / f"{name}.png"))
        assert numbers[f"psnr_{way}"] == pytest.approx(peak_signal_noise_ratio(original, picture), abs=0.1)
        unit = (torch.from_numpy(np.stack([picture, original])).permute(0, 3, 1, 2) / 255).split(1)
        assert numbers[f"ssim_{way}"] == pytest.approx(float(ssim(*unit)), abs=0.01)
    assert numbers["inner_steps"] == T * N == numbers["unet_backwards"]
    assert numbers["seconds_total"] >= numbers["seconds_pivot"] + numbers["seconds_optimisation"] > 0
    assert np.array_equal(original, np.asarray(Image.open("sheep.png")))
    (row,) = csv.DictReader(open("lightning_logs/version_0/metrics.csv"))
    assert float(row["psnr_null_text"]) == numbers["psnr_null_text"]
    assert Image.open(folder / "report.png").width > 600


def test_curves_stand_on_their_axes(room, tiny_sd):
    assert fit(tiny_sd, "--curves.images_every", "2") == 0
    scalars, images = events("lightning_logs/version_0")
    assert [step for step, _ in scalars["loss_inner/sheep"]] == list(range(T * N))
    for name in ("loss", "inner_steps", "grad_norm", "learning_rate"):
        assert [step for step, _ in scalars[f"{name}/sheep"]] == list(range(T))
    rates = [value for _, value in scalars["learning_rate/sheep"]]
    assert rates == pytest.approx([0.002 * (1 - i / 100) for i in range(T)])
    assert images["heading_for/sheep"] == [0, 2, 3]
    assert images["original_vae_ddim_nulltext/sheep"] == images["loss_heat_map/sheep"] == [3]
    numbers = json.loads(Path("lightning_logs/version_0/sheep/metrics.json").read_text())
    ((_, fidelity),) = scalars["hparam/psnr_null_text"]
    assert fidelity == pytest.approx(numbers["psnr_null_text"], rel=1e-5)


class Crash(Exception):
    """A machine that dies."""


@pytest.mark.parametrize("callback", [Artifacts, Curves, Checkpointer])
@pytest.mark.parametrize("step", [1, T - 1])
def test_a_crash_in_any_callback_loses_and_repeats_nothing(callback, step, room, tiny_sd, monkeypatch):
    assert fit(tiny_sd) == 0
    whole = load_file("lightning_logs/version_0/sheep/inversion.safetensors")
    before = callback.on_train_batch_end

    def crash(self, trainer, pl_module, *rest):
        if pl_module.record.step == step:
            raise Crash
        before(self, trainer, pl_module, *rest)

    with monkeypatch.context() as broken, pytest.raises(Crash):
        broken.setattr(callback, "on_train_batch_end", crash)
        fit(tiny_sd)
    assert fit(tiny_sd, "--ckpt_path", "last") == 0
    resumed = load_file("lightning_logs/version_1/sheep/inversion.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, _ = events("lightning_logs/version_0")
    other, _ = events("lightning_logs/version_1")
    for tag in (tag for tag in one if not tag.startswith("hparam")):
        assert one[tag] == other[tag], tag  # no point twice, none missing, equal values
    reports = [json.loads(Path(f"lightning_logs/version_{n}/sheep/metrics.json").read_text()) for n in (0, 1)]
    for key in ("inner_steps", "unet_forwards", "unet_backwards", "psnr_null_text", "latent_mse"):
        assert reports[0][key] == reports[1][key]


def test_a_result_that_cannot_be_written_does_not_count_as_done(room, tiny_sd, monkeypatch, capsys):
    def full(*_):
        raise UserError("cannot write report.png: No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("nulltext.training.callbacks.write_result", full)
        assert fit(tiny_sd) == 2
    cursor = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"][
        "cursor"
    ]
    assert int(cursor) == T - 1
    assert fit(tiny_sd, "--ckpt_path", "last") == 0
    assert Path("lightning_logs/version_0/sheep/inversion.safetensors").is_file()


def poison(monkeypatch, call, step):
    """Takes the numbers out of the pivot of one group of pictures from a timestep on."""
    before, calls = base.invert_to_noise, []

    def poisoned(*rest, **others):
        pivot = before(*rest, **others)
        calls.append(pivot)
        if len(calls) == call:
            pivot[step + 1 :] = math.nan
        return pivot

    monkeypatch.setattr(base, "invert_to_noise", poisoned)


@pytest.mark.parametrize("step", [0, T - 1])
def test_a_loss_that_is_no_number_costs_its_picture_and_no_other(step, room, tiny_sd, monkeypatch, capsys):
    Image.open("cow.png").rotate(90).save("pig.png")
    farm = ["--data.image", "cow.png", "--data.image", "pig.png"]
    assert fit(tiny_sd, *farm) == 0
    capsys.readouterr()
    with monkeypatch.context() as poisoned:
        poison(poisoned, 2, step)
        assert fit(tiny_sd, *farm) == 1
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "skipped" in line]
    assert f"cow.png: the loss of step {step} was not finite 3 times in a row; try " in line
    assert "2 pictures at" in said and "go on with" not in said
    whole, run = Path("lightning_logs/version_0"), Path("lightning_logs/version_1")
    assert not (run / "cow").exists() and [r["name"] for r in read_rows(run / "metrics.csv")] == [
        "sheep",
        "pig",
    ]
    for name in ("sheep", "pig"):
        assert (run / name / ARTIFACT).read_bytes() == (whole / name / ARTIFACT).read_bytes()
    scalars, _ = events(run)
    assert [i for i, _ in scalars.get("loss/cow", [])] == list(range(step))
    assert [i for i, _ in scalars["loss/pig"]] == list(range(T))
    assert fit(tiny_sd, *farm, "--ckpt_path", str(run)) == 0  # with the cause gone, it alone is done
    assert "2 of these pictures were finished before" in capsys.readouterr().out
    assert (run / "cow" / ARTIFACT).read_bytes() == (whole / "cow" / ARTIFACT).read_bytes()


def test_a_group_whose_loss_is_no_number_is_left_out_whole(room, tiny_sd, monkeypatch, capsys):
    poison(monkeypatch, 1, step=1)
    assert fit(tiny_sd, "--data.image", "cow.png", "--data.batch_size", "2") == 1
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "skipped" in line]
    assert len(lines) == 2 and all("--data.batch_size 1" in line for line in lines)
    assert "nothing was left to do" not in said and not list(room.rglob(ARTIFACT))


def test_the_only_picture_ends_the_run_with_its_last_good_timestep_saved(room, tiny_sd, monkeypatch, capsys):
    poison(monkeypatch, 1, step=2)
    assert fit(tiny_sd) == 2
    assert "the loss of step 2 was not finite 3 times in a row; try " in capsys.readouterr().err
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert int(checkpoint["state_dict"]["cursor"]) == 2


def test_checkpoint_is_small_and_without_pickled_objects(room, tiny_sd):
    assert fit(tiny_sd) == 0
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert not any(checkpoint["optimizer_states"])
    assert {"cursor", "z", "pivot"} <= checkpoint["state_dict"].keys()
    assert not [key for key in checkpoint["state_dict"] if "unet" in key or "vae" in key]


def test_several_pictures_each_have_a_folder_a_row_and_curves(room, tiny_sd, capsys):
    always = "--model.pivot_tolerance", "0"  # otherwise each picture has its own number of refinements
    assert fit(tiny_sd, "--data.image", "cow.png", "--data.batch_size", "2", *always) == 0
    run = Path("lightning_logs/version_0")
    assert {row["name"] for row in read_rows(run / "metrics.csv")} == {"sheep", "cow"}
    assert all((run / name / "inversion.safetensors").is_file() for name in ("sheep", "cow"))
    scalars, _ = events(run)
    assert [step for step, _ in scalars["loss/cow"]] == list(range(T))
    assert "2 pictures at" in capsys.readouterr().out
    alone = Path("lightning_logs/version_1")
    assert fit(tiny_sd, *always) == 0
    both, one = (json.loads((place / "sheep/metrics.json").read_text()) for place in (run, alone))
    assert both["unet_forwards"] == one["unet_forwards"]  # counted per latent
    assert both["psnr_null_text"] == pytest.approx(one["psnr_null_text"], abs=0.01)


def test_tensorboard_says_what_its_curves_are_and_how_the_run_was_started(room, tiny_sd):
    assert fit(tiny_sd) == 0
    accumulator = EventAccumulator("lightning_logs/version_0")
    accumulator.Reload()
    tags = accumulator.Tags()
    for tag in [*tags["scalars"], *tags["images"]]:
        if not tag.startswith("hparam/"):
            assert accumulator.SummaryMetadata(tag).summary_description == ABOUT[tag.split("/")[0]]
    texts = [tag for tag in tags["tensors"] if tag.endswith("/text_summary")]
    words = {tag: accumulator.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in texts}
    assert "inner_steps: " in words["settings/text_summary"]
    assert (
        words["result/sheep/text_summary"].startswith("a sheep: ")
        and " dB" in words["result/sheep/text_summary"]
    )


def test_events_of_a_killed_writer_are_read_as_far_as_they_go(room, tiny_sd):
    assert fit(tiny_sd) == 0
    run = Path("lightning_logs/version_0")
    whole = written_events(run)
    for path in run.glob("events.out.tfevents.*"):
        path.write_bytes(path.read_bytes()[:-7])
    cut = written_events(run)
    assert ("loss/sheep", 0) in cut and cut <= whole


def record(step, losses):
    losses = torch.tensor(losses)
    zero = torch.zeros(1, 4, 2, 2)
    return StepRecord(step, zero, zero, losses, losses, torch.tensor([len(losses)]), zero[0], 0.01)


def test_tensorboard_reads_while_the_run_writes(room, tiny_sd, monkeypatch):
    run, over, problems, reads = Path("lightning_logs/version_0"), threading.Event(), [], []
    before = Curves.on_train_batch_end

    def watch():
        while not run.is_dir():
            time.sleep(0.001)
        accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
        while not problems:
            last = over.is_set()
            try:
                accumulator.Reload()
                there = "loss/sheep" in accumulator.Tags()["scalars"]
                reads.append([point.step for point in accumulator.Scalars("loss/sheep")] if there else [])
            except Exception as error:
                problems.append(error)
            if last:
                return

    def write_and_wait_for_a_reader(*rest):
        before(*rest)
        enough = len(reads) + 2  # one read may have begun before
        while len(reads) < enough and not problems:
            time.sleep(0.001)

    monkeypatch.setattr(Curves, "on_train_batch_end", write_and_wait_for_a_reader)
    reader = threading.Thread(target=watch, daemon=True)
    reader.start()
    assert fit(tiny_sd) == 0
    over.set()
    reader.join(60)
    assert not reader.is_alive() and problems == []
    for done in range(T + 1):  # each timestep was there to see as soon as it was done, and in the end all
        assert list(range(done)) in reads
    assert reads[-1] == list(range(T))


class ClockSetBack:
    """A clock that somebody sets back an hour, over and over."""

    def __init__(self):
        self.calls, self.now = 0, 1e9

    def __call__(self):
        self.calls += 1
        self.now += -3600 if self.calls % 3 == 0 else 0.5
        return self.now


@pytest.mark.parametrize("clock", ["time", "perf_counter", "monotonic"])
def test_a_clock_that_is_set_back_changes_nothing_but_the_seconds(clock, room, tiny_sd, monkeypatch):
    assert fit(tiny_sd) == 0
    with monkeypatch.context() as back:
        back.setattr(sys, "stderr", Terminal())
        back.setattr(time, clock, ClockSetBack())
        if clock == "time":
            back.setattr("tqdm.std.time", ClockSetBack())
        assert fit(tiny_sd) == 0
    one, other = (Path(f"lightning_logs/version_{n}") for n in (0, 1))
    assert (one / "sheep" / ARTIFACT).read_bytes() == (other / "sheep" / ARTIFACT).read_bytes()
    seconds = {
        k: v for k, v in json.loads((other / "sheep/metrics.json").read_text()).items() if "seconds" in k
    }
    assert len(seconds) == 3 and all(value >= 0 for value in seconds.values()), seconds
    scalars = [
        {k: v for k, v in events(run)[0].items() if not k.startswith("hparam")} for run in (one, other)
    ]
    assert scalars[0] == scalars[1]


def test_history_keeps_the_second_run_of_a_timestep():
    history = History()
    history.add(record(0, [[1.0], [0.5]]), torch.tensor([0.25]))
    history.add(record(1, [[9.0]]), torch.tensor([9.0]))
    history.add(record(1, [[2.0]]), torch.tensor([1.0]))
    assert history.before(0) == [1.0, 2.0] and [float(a) for a in history.after] == [0.25, 1.0]
    history.add(record(2, torch.zeros(0, 1).tolist()), torch.tensor([0.0]))
    assert math.isnan(history.before(0)[2])


class Terminal(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self):
        return True


def shown(tiny, monkeypatch, terminal, seconds_between):
    """What each inner step of a run leaves on a terminal by the time that it is taken: (i, j, text)."""
    monkeypatch.setenv("COLUMNS", "81")  # tqdm takes one off
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_INNER", seconds_between)
    seen, before = [], NullText.step

    def watched(method, model, state, i, tell):
        def told(j, losses):
            tell(j, losses)
            seen.append((i, j, float(losses), terminal.getvalue().rpartition("\r")[2]))

        return before(method, model, state, i, told if tell else seen.append("nobody"))

    monkeypatch.setattr(NullText, "step", watched)
    assert fit(tiny) == 0
    return seen


def test_the_bar_moves_with_every_inner_step(room, tiny_sd, monkeypatch):
    seen = shown(tiny_sd, monkeypatch, Terminal(), seconds_between=0)
    assert [(i, j) for i, j, *_ in seen] == [(i, j) for i in range(T) for j in range(N)]
    for i, j, loss, text in seen:
        assert f"timestep {i + 1}/{T}, inner {j}/{N}, loss {loss:.1e}" in text
        assert f"sheep 1/1: {i / T:4.0%}|" in text  # the bar itself counts the timesteps that are done


def test_the_last_line_on_a_terminal_is_what_to_type_next(room, tiny_sd, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert fit(tiny_sd) == 0
    *_, bar, last = terminal.getvalue().splitlines()
    assert "100%|" in bar and last.startswith("sheep at ") and "--inversion" in last


def test_the_bar_reads_few_losses_and_none_where_nobody_sees_it(room, tiny_sd, monkeypatch):
    with monkeypatch.context() as on_terminal:
        seen = shown(tiny_sd, on_terminal, Terminal(), seconds_between=1000)
    told = [(i, j) for i, j, _, text in seen if f"timestep {i + 1}/{T}, inner {j}/{N}, loss" in text]
    assert told == [(0, 0)]
    assert shown(tiny_sd, monkeypatch, io.StringIO(), seconds_between=0) == ["nobody"] * T


def numbers(name, ours=26.0, bound=27.0):
    return {
        "name": name, "prompt": "a sheep's 'wool'", "psnr_null_text": ours, "psnr_vae": bound, "psnr_ddim": 17.0,
        "seconds_total": 1.0, "settings": {"steps": 3},
    }  # fmt: skip


def test_rows_are_replaced_by_name_and_the_last_line_gives_the_next_command(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    path.parent.mkdir()
    for name, ours in (("a", 20.0), ("b", 25.0), ("a", 26.0)):
        add_row(path, numbers(name, ours), ["a", "b"])
    assert [(row["name"], float(row["psnr_null_text"])) for row in read_rows(path)] == [
        ("a", 26.0),
        ("b", 25.0),
    ]
    line = closing(path.parent)
    assert "\n" not in line and "2 pictures at 25.50 dB, VAE bound 27.00" in line
    assert shlex.split(line.partition("of the prompt: ")[2])[-1] == "a sheep's 'wool'"
    add_row(path, numbers("a") | {"prompt": "somebody's house"}, ["a", "b"])
    command = closing(path.parent).partition("of the prompt: ")[2]
    assert shlex.split(command)[-1] == "somebody's house"


def test_summary_says_what_to_do_below_the_bound():
    assert "--model.inner_steps" in summary(numbers("a", ours=20.0), "null-text")
    assert "--model.inner_steps" not in summary(numbers("a", ours=26.9), "null-text")
