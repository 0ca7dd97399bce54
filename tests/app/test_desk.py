"""The page's work without a page: runs, stopping, going on, and commands that give the same picture to the bit."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nulltext.app.desk import Desk
from nulltext.app.layout import guard, load
from nulltext.cli import main
from nulltext.errors import UserError
from nulltext.runs.finished import ARTIFACT


def as_it_is(part: Any, change: Any) -> Any:
    return change


SHORT = ["--model.steps=3", "--model.inner_steps=1", "--device=cpu"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A desk with the farmyard, and a picture that it has inverted."""
    from nulltext.farmyard.world.imagefolder import write_jpeg

    place = tmp_path_factory.mktemp("desk")
    write_jpeg(place / "sheep.jpg", 1_000_003)
    desk = Desk(SHORT, place)
    folder, seen = invert(desk, [*SHORT, f"--data.image={place / 'sheep.jpg'}"])
    return desk, place, folder, seen


def invert(desk: Desk, words: list[str], stop: bool = False) -> tuple[Path, list[tuple[int, int]]]:
    seen: list[tuple[int, int]] = []

    def after_step(*step: int) -> bool:
        seen.append(step)
        return stop

    return desk.invert(words, after_step)[0], seen


def test_an_inversion_is_a_run_like_any_other(work: Any) -> None:
    _, place, folder, seen = work
    assert folder == place / "lightning_logs" / "version_0" / "sheep" and seen == [(1, 3), (2, 3), (3, 3)]
    for name in (
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        f"sheep/{ARTIFACT}",
        "sheep/report.png",
    ):
        assert (folder.parent / name).is_file(), name


def test_stopping_keeps_what_is_done_and_going_on_gives_the_same_bits(work: Any) -> None:
    desk, place, whole, _ = work
    words = [*SHORT, f"--data.image={place / 'sheep.jpg'}"]
    stopped, seen = invert(desk, words, stop=True)
    assert seen == [(1, 3)] and not (stopped / ARTIFACT).is_file()
    assert (stopped.parent / "checkpoints/last.ckpt").is_file()
    resumed, seen = invert(desk, [*words, f"--ckpt_path={stopped.parent}"])
    assert seen == [(2, 3), (3, 3)] and resumed == stopped
    assert (resumed / ARTIFACT).read_bytes() == (whole / ARTIFACT).read_bytes()


def test_the_command_of_an_edit_gives_the_same_picture_to_the_bit(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, place, _, _ = work
    monkeypatch.chdir(place)
    words = ["--inversion", "lightning_logs/version_0/sheep", "--prompt", "a photo of a horse on a meadow"]
    for more in ([], ["--local_blend", "none"], ["--seed", "2", "--guidance_scale", "3"]):
        made, _ = desk.edit([*words, *more, "--device", "cpu"])
        inside = Image.open(made).text  # type: ignore[attr-defined]
        assert inside["prompt"] == "a photo of a horse on a meadow" and '"command"' in inside["settings"]
        folder, command = made.parent, json.loads(inside["settings"])["command"]
        before = set(folder.glob("*.json"))
        assert main(shlex.split(command)[2:]) == 0
        (settings,) = set(folder.glob("*.json")) - before
        again = settings.with_suffix(".png")
        assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(made)))


def test_other_methods_take_only_what_is_not_the_methods_own(work: Any) -> None:
    desk, place, _, _ = work
    words = desk.words_for("ddim")
    assert "--model.method=ddim" in words and not any("inner_steps" in word for word in words)
    folder, _ = invert(desk, [*words, f"--data.image={place / 'sheep.jpg'}"])
    assert (folder / ARTIFACT).is_file() and desk.words_for("null_text") == SHORT


def test_an_unknown_word_is_said_each_time(work: Any) -> None:
    desk, _, folder, _ = work
    for _ in range(2):
        made, _ = desk.edit(["--inversion", str(folder), "--prompt", "a photo of a zebra"])
        notes = json.loads(made.with_suffix(".json").read_text(encoding="utf-8"))["notes"]
        assert any("zebra" in note for note in notes)


def test_a_run_that_fails_raises_here_and_frees_the_device(work: Any) -> None:
    desk, place, folder, _ = work
    (place / "torn.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="torn"):
        invert(desk, [*SHORT, f"--data.image={place / 'torn.png'}"])
    assert desk.edit(["--inversion", str(folder), "--prompt", "a photo of a cow"])[0].is_file()


def test_a_run_that_nobody_listens_to_any_more_is_finished_and_saved(work: Any) -> None:
    desk, place, _, _ = work
    done: list[Path] = []

    def action(g: Any) -> dict[str, Any]:
        g.show(status="begun")
        done.append(invert(desk, [*SHORT, f"--data.image={place / 'sheep.jpg'}"])[0])
        return {}

    run = guard(lambda: action, {}, SimpleNamespace(status="status"), as_it_is)({})
    assert next(run) == {"status": "begun"}
    run.close()
    deadline = time.monotonic() + 60
    while not done and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (done[0] / ARTIFACT).is_file()


def test_a_model_that_does_not_load_is_told_when_it_is_needed(tmp_path: Path) -> None:
    loading = load([f"--model.pretrained={tmp_path / 'none'}"], tmp_path, [])
    run = guard(lambda: loading.result().edit, {}, SimpleNamespace(status="status"), as_it_is)
    (told,) = run({})
    assert 'class="bad"' in told["status"] and "none" in told["status"]


def test_a_desk_leaves_the_device_open_where_nobody_names_one(tmp_path: Path) -> None:
    assert Desk(["--model.steps=3"], tmp_path).place == {"device": "auto", "precision": "32-true"}
    named = Desk(["--device=cpu", "--precision=bf16-mixed", "--data.size=64"], tmp_path)
    assert named.place == {"device": "cpu", "precision": "bf16-mixed"}
    said = ["--model.method=ddim", "--data.size=64", "--device=cpu", "--precision=bf16-mixed"]
    assert set(said) < set(named.words_for("ddim"))
    assert named.words_for("null_text", prompt="a sheep") == [*named.words, "--data.prompt=a sheep"]
