"""The page's work without a page: runs, stopping, going on, and commands that give the same picture to the bit."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nulltext.app.desk import Desk
from nulltext.cli import main
from nulltext.errors import UserError
from nulltext.runs.finished import ARTIFACT

PROMPT = "a photo of a white sheep on a green meadow next to a barn"
SHORT = ["--model.steps=3", "--model.inner_steps=1", "--device=cpu"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A desk with the farmyard, and a picture that it has inverted."""
    from nulltext.farmyard.world.imagefolder import write_jpeg

    place = tmp_path_factory.mktemp("desk")
    write_jpeg(place / "sheep.jpg", 1_000_003)
    desk = Desk(SHORT, place)
    desk.load()
    fitted, seen = finish(desk.invert([*SHORT, f"--data.image={place / 'sheep.jpg'}"], lambda: False, []))
    return desk, place, fitted, seen


def finish(run: Any) -> tuple[Any, list[tuple[int, int]]]:
    seen = []
    while True:
        try:
            seen.append(next(run))
        except StopIteration as end:
            return end.value, seen


def test_an_inversion_is_a_run_like_any_other(work: Any) -> None:
    _, place, fitted, seen = work
    assert fitted.run == place / "lightning_logs" / "version_0" and seen == [(1, 3), (2, 3), (3, 3)]
    assert fitted.picture == fitted.run / "sheep"
    for name in (
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        f"sheep/{ARTIFACT}",
        "sheep/report.png",
    ):
        assert (fitted.run / name).is_file(), name


def test_stopping_keeps_what_is_done_and_going_on_gives_the_same_bits(work: Any) -> None:
    desk, place, whole, _ = work
    words = [*SHORT, f"--data.image={place / 'sheep.jpg'}"]
    stopped, seen = finish(desk.invert(words, lambda: True, []))
    assert seen == [(1, 3)] and stopped.picture is None and (stopped.run / "checkpoints/last.ckpt").is_file()
    resumed, seen = finish(desk.invert([*words, f"--ckpt_path={stopped.run}"], lambda: False, []))
    assert seen == [(2, 3), (3, 3)] and resumed.run == stopped.run
    assert (resumed.picture / ARTIFACT).read_bytes() == (whole.picture / ARTIFACT).read_bytes()


def test_the_command_of_an_edit_gives_the_same_picture_to_the_bit(
    work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, place, _, _ = work
    monkeypatch.chdir(place)
    words = ["--inversion", "lightning_logs/version_0/sheep", "--prompt", "a photo of a horse on a meadow"]
    for more in ([], ["--local_blend", "none"], ["--seed", "2", "--guidance_scale", "3"]):
        made = desk.edit([*words, *more, "--device", "cpu"])
        inside = Image.open(made.path).text  # type: ignore[attr-defined]
        assert inside["prompt"] == "a photo of a horse on a meadow" and '"command"' in inside["settings"]
        folder, command = made.path.parent, json.loads(inside["settings"])["command"]
        before = set(folder.glob("*.json"))
        assert main(shlex.split(command)[2:]) == 0
        (settings,) = set(folder.glob("*.json")) - before
        again = settings.with_suffix(".png")
        assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(made.path)))


def test_other_methods_take_only_what_is_not_the_methods_own(work: Any) -> None:
    desk, place, _, _ = work
    words = desk.words_for("ddim")
    assert "--model.method=ddim" in words and not any("inner_steps" in word for word in words)
    fitted, _ = finish(desk.invert([*words, f"--data.image={place / 'sheep.jpg'}"], lambda: False, []))
    assert fitted.picture is not None and desk.words_for("null_text") == SHORT


def test_an_unknown_word_is_said_each_time(work: Any) -> None:
    desk, _, fitted, _ = work
    for _ in range(2):
        made = desk.edit(["--inversion", str(fitted.picture), "--prompt", "a photo of a zebra"])
        notes = json.loads(made.path.with_suffix(".json").read_text(encoding="utf-8"))["notes"]
        assert any("zebra" in note for note in notes)


def test_a_run_that_fails_raises_here_and_frees_the_device(work: Any) -> None:
    desk, place, fitted, _ = work
    (place / "torn.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="torn"):
        finish(desk.invert([*SHORT, f"--data.image={place / 'torn.png'}"], lambda: False, []))
    assert desk.edit(["--inversion", str(fitted.picture), "--prompt", "a photo of a cow"]).path.is_file()


def test_a_run_that_nobody_listens_to_any_more_is_finished_and_saved(work: Any) -> None:
    desk, place, _, _ = work
    run = desk.invert([*SHORT, f"--data.image={place / 'sheep.jpg'}"], lambda: False, [])
    next(run)
    run.close()
    newest = max(place.glob("lightning_logs/version_*"), key=lambda path: path.stat().st_mtime_ns)
    with desk._device:  # free once the run is done
        assert (newest / "sheep" / ARTIFACT).is_file()


def test_a_model_that_does_not_load_is_told_when_it_is_needed(tmp_path: Path) -> None:
    desk = Desk([f"--model.pretrained={tmp_path / 'none'}"], tmp_path)
    desk.load()
    with pytest.raises(UserError, match="none"):
        _ = desk.model
