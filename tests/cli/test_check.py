"""``check`` on the shipped model, and on random pipelines, of which it must say so."""

from pathlib import Path

import pytest

from nulltext.cli.main import main

ROOT = Path(__file__).parents[2]
QUICK = ["--steps", "3", "--inner_steps", "1", "--device", "cpu"]


def run(tmp_path: Path, *words: str) -> int:
    image = ["--image", str(ROOT / "sheep.jpg"), "--output", str(tmp_path)]
    return main(["check", *image, *QUICK, *words])


def test_the_shipped_model_is_as_expected(tmp_path, capsys):
    assert run(tmp_path, "--steps", "6", "--inner_steps", "3") == 0
    said = capsys.readouterr().out
    assert "6 of 6 as expected" in said
    assert (tmp_path / "check_0" / "report.md").read_text().count("| yes |") == 6
    assert (tmp_path / "check_0" / "strip.png").is_file()


def test_a_second_report_leaves_the_first(tmp_path):
    (tmp_path / "check_0").mkdir()
    assert run(tmp_path) in (0, 1)
    assert not list((tmp_path / "check_0").iterdir())
    assert (tmp_path / "check_1" / "report.md").is_file()


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("tiny_sdxl", "tiny_flux", "tiny_chroma")]


@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sd_v", "tiny_sd3", *SLOW])
def test_random_weights_are_called_random(family, request, tmp_path, capsys):
    folder = request.getfixturevalue(family)
    assert run(tmp_path, "--model.pretrained", str(folder)) == 1
    said = capsys.readouterr().out
    assert "the weights are random" in said
    assert "load trained weights" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.pretrained", "nowhere/at/all"], "nowhere/at/all"),
        (["--image", "no.jpg"], "no.jpg"),
        (["--device", "cuda:99"], "device cuda:99"),
        (["--precision", "8"], "precision"),
        (["--model.pretraind", "farmyard"], "pretraind"),
    ],
)
def test_mistakes_end_before_weights_load(words, said, tmp_path, capsys):
    assert run(tmp_path, *words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
