"""What the verbs say of a model: one line where it is spoilt, one note where it does not know a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from nulltext.cli import main
from nulltext.inversion.file import Inversion
from nulltext.models import shipped

SHEEP = str(Path(__file__).parents[2] / "sheep.jpg")


@pytest.mark.parametrize("verb", ["fit", "edit", "test"])
def test_a_spoilt_farmyard_is_one_line_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    folder = Path(shutil.copytree(shipped.PRETRAINED, tmp_path / "pretrained"))
    monkeypatch.setattr(shipped, "PRETRAINED", folder)
    monkeypatch.chdir(tmp_path)
    spoilt = folder / "vae" / "diffusion_pytorch_model.safetensors"
    spoilt.unlink()
    null, noise = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    Inversion(null, noise, "a sheep", 7.5, "farmyard", "", {}, [1], (64, 64)).save(Path("x.safetensors"))
    words = {
        "fit": ["--data.image", SHEEP],
        "edit": ["--inversion", "x.safetensors", "--prompt", "a cow"],
        "test": ["--config", "benchmark.yaml", "--output", "out"],
    }
    assert main([verb, *words[verb]]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(spoilt) in error
    assert error.rstrip().endswith("make them again: python -m nulltext.farmyard train")
    assert not Path("out").exists() and not Path("lightning_logs").exists()


def test_a_word_that_the_farmyard_does_not_know_is_noted_once_by_fit_and_by_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--data.image", SHEEP, "--data.prompt", "a striped sheep", "--model.steps", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("does not know 'striped'; it knows: a, among, an, at, barn") == 1
    assert main(["edit", "--inversion", "lightning_logs/version_0", "--prompt", "a striped zebra"]) == 0
    said = capsys.readouterr().out
    assert said.count("does not know 'zebra'") + said.count("does not know 'striped', 'zebra'") == 1
    assert said.count("striped'") == 1


def test_the_farmyard_and_a_weighted_prompt_are_noted_once_for_many_pictures(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "two.png"):
        Image.effect_noise((64, 64), 50).convert("RGB").save(name)
    quick = ["--model.steps", "2", "--model.inner_steps", "0"]
    assert main(["fit", *quick, "--data.image", "one.png", "two.png", "--data.prompt", "a (sheep:1.3)"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("no photographs") == printed.count("(sheep:1.3)' is read letter by letter") == 1
