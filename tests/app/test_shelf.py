"""What lies in the run folders, as the page sees it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nulltext.app.actions import Actions
from nulltext.app.layout import Sheet, guard
from nulltext.data.frame import Frame, Placement
from nulltext.data.masks import read_mask
from nulltext.errors import UserError, told_of
from nulltext.inversion.file import Inversion
from nulltext.inversion.reading import read_facts
from nulltext.plots.small import framed
from nulltext.runs.shelf import costs, fidelity, history, inverted, read_json, write_mask


def an_inversion(folder: Path, crop: str = "center", photo: tuple[int, int] = (64, 64)) -> Path:
    placement = Frame(crop, 64, 8).place(*photo)
    Inversion(
        null_embeddings=torch.zeros(2, 3, 4),
        noise=torch.zeros(4, 8, 8),
        prompt="a sheep",
        guidance_scale=7.5,
        model="tiny",
        fingerprint="f",
        scheduler={},
        timesteps=[500, 1],
        size=(64, 64),
        psnr=30.0,
        placement=placement.to_dict(),
    ).save(folder / "inversion.safetensors")
    return folder


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def painted() -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 16:56] = 255
    return mask


@pytest.mark.parametrize(
    ("crop", "photo"),
    [("center", (64, 64)), ("center", (200, 128)), ("100,40,228,168", (300, 300)), ("none", (128, 128))],
)
def test_what_is_painted_is_what_the_edit_reads(tmp_path: Path, crop: str, photo: tuple[int, int]) -> None:
    folder = an_inversion(tmp_path / "sheep", crop, photo)
    path = write_mask(png(Image.fromarray(painted())), folder)
    placement = Placement.from_dict(read_facts(folder / "inversion.safetensors")["placement"])
    back = read_mask(path, placement, (64, 64)).numpy() * 255
    assert np.abs(back - painted()).mean() < 2


def test_nothing_painted_is_one_line(tmp_path: Path) -> None:
    folder = an_inversion(tmp_path / "sheep")
    for empty in (b"", png(Image.new("L", (64, 64)))):
        with pytest.raises(UserError, match="nothing is painted"):
            write_mask(empty, folder)


def test_a_painting_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    folder = an_inversion(tmp_path / "sheep")
    with pytest.raises(UserError):
        write_mask(b"no picture", folder)


def test_runs_and_their_edits_are_found_whoever_made_them(tmp_path: Path) -> None:
    folder = an_inversion(tmp_path / "lightning_logs" / "version_0" / "sheep")
    assert inverted(tmp_path) == {"version_0/sheep": folder}
    (folder / "edits").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "edits" / "a-horse.png")
    (folder / "edits" / "a-horse.json").write_text(json.dumps({"prompt": "a horse"}), encoding="utf-8")
    (folder / "edits" / "torn.json").write_text("{", encoding="utf-8")
    assert history(folder) == [(folder / "edits" / "a-horse.png", "a horse")]
    assert read_json(folder / "edits" / "torn.json") == {}


def dropped(path: Path, **dials: Any) -> SimpleNamespace:
    chosen = {"crop": "center", "left": 50, "top": 50, "side": 50, **dials}
    return SimpleNamespace(file=str(path), sheet=Sheet(), index=None, **chosen)


def actions() -> Actions:
    """Those of a page that needs of its model no more than how it cuts pictures."""
    desk = SimpleNamespace(size=None, model=SimpleNamespace(default_size=64, size_multiple=8))
    return Actions(desk, [])  # type: ignore[arg-type]


def test_the_prompt_of_a_picture_is_found_as_fit_finds_it(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64), "green").save(tmp_path / "sheep.png")
    assert actions().look(dropped(tmp_path / "sheep.png"))["prompt"] == ""
    (tmp_path / "sheep.txt").write_text("a photo of a sheep", encoding="utf-8")
    assert actions().look(dropped(tmp_path / "sheep.png"))["prompt"] == "a photo of a sheep"


@pytest.mark.parametrize(
    ("dials", "inside", "outside"),
    [
        ({}, (256, 170), (20, 170)),
        ({"crop": "box", "left": 0}, (20, 170), (300, 170)),
        ({"crop": "box", "left": 100, "top": 0}, (500, 20), (500, 300)),
    ],
)
def test_what_is_cut_off_is_dark(
    tmp_path: Path, dials: dict[str, Any], inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    Image.new("RGB", (960, 640), "green").save(tmp_path / "sheep.png")
    small = actions().look(dropped(tmp_path / "sheep.png", **dials))["preview"]
    assert small.size == (512, 341)
    assert small.getpixel(inside)[1] > 2 * small.getpixel(outside)[1]


def test_a_box_is_drawn_where_it_lies_in_the_photo() -> None:
    small = framed(Image.new("RGB", (1024, 512), "white"), (512.0, 0.0, 1024.0, 512.0))
    assert small.getpixel((384, 128)) == (255, 255, 255) and small.getpixel((128, 128))[0] < 128


def test_a_hostile_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    with pytest.raises(UserError) as error:
        actions().look(dropped(tmp_path / "bomb.png"))
    assert "\n" not in str(error.value)


def test_every_mistake_is_a_line_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    status = object()

    errors = {
        "user": UserError("<no> picture"),
        "memory": RuntimeError("CUDA out of memory"),
        "bug": KeyError(),
    }

    def fails(g: SimpleNamespace) -> None:
        raise errors[g.what]

    what = object()
    run = guard(lambda: fails, {"what": what}, SimpleNamespace(status=status), lambda part, change: change)
    said = {kind: next(iter(run({what: kind})))[status] for kind in ("user", "memory", "bug")}
    assert "&lt;no&gt; picture" in said["user"] and 'class="bad"' in said["user"]
    assert "memory ran out" in said["memory"] and "KeyError" in said["bug"]
    assert "Traceback" in capsys.readouterr().err and "Traceback" not in said["bug"]


def test_a_users_mistake_is_told_in_its_own_words() -> None:
    assert told_of(UserError("give\na picture")) == "give a picture"


def test_the_fidelity_of_a_run_names_its_bound_and_costs_and_without_numbers_its_psnr(tmp_path: Path) -> None:
    folder = an_inversion(tmp_path / "sheep")
    assert fidelity(folder) == "PSNR of sheep: 30.00 dB"
    numbers = {
        "name": "sheep",
        "method": "null_text",
        "psnr_null_text": 29.5,
        "psnr_vae": 30.1,
        "psnr_ddim": 20.0,
    }
    numbers |= {"seconds_total": 3.0, "unet_forwards": 12, "unet_backwards": 7}
    (folder / "metrics.json").write_text(json.dumps(numbers), encoding="utf-8")
    line = fidelity(folder)
    assert "29.50 dB" in line and "bound 30.10" in line and "12 evaluations and 7 gradients" in line
    assert costs(folder) == ["null_text", "29.50", "3.0", "12", "7", tmp_path.name]
