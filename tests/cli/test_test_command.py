"""The test verb: from the words of a command line to the settings of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import nulltext.cli.test as command
from nulltext.cli import main
from nulltext.cli.words import find_config
from nulltext.errors import UserError
from nulltext.evaluation import find_compared


@pytest.fixture
def settings(monkeypatch):
    """Gives the settings of a command line, of which nothing is run."""
    seen = []

    def stop(chosen, **_):
        seen.append(chosen)
        raise UserError("stopped")

    monkeypatch.setattr(command, "_benchmark", lambda chosen: None)
    monkeypatch.setattr(command, "check", lambda chosen: None)
    monkeypatch.setattr(command, "evaluate", stop)

    def read(*words):
        assert main(["test", *words]) == 2
        return seen[-1]

    return read


@pytest.mark.parametrize("name", ["benchmark", "pie_bench"])
def test_every_config_is_read_and_its_values_are_the_settings(name, settings):
    wanted, found = yaml.safe_load(find_config(name).read_text()), settings("--config", name)
    for section in ("data", "edit", "metrics"):
        for option, value in wanted[section].items():
            assert getattr(getattr(found, section), option) == value
    for option in ("batch_size", "seed"):
        assert getattr(found, option) == wanted[option]
    assert found.output == Path(wanted["output"])
    assert list(found.editing) == wanted.get("editing", ["plain", "prompt_to_prompt", "default"])
    method = found.methods["null_text"]
    for option in wanted["model"].keys() - {"pretrained", "optimizer", "learning_rate"}:
        assert getattr(method, option) == wanted["model"][option]
    optimizer = method.optimizer([torch.zeros(1, requires_grad=True)])
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]["lr"] == 0.01
    assert found.loading.pretrained == wanted["model"]["pretrained"]


def test_the_published_settings_stand_in_their_config():
    chosen = yaml.safe_load(find_config("pie_bench").read_text())
    assert chosen["edit"] == {
        "cross_steps": 0.4,
        "self_steps": 0.6,
        "equalizer": 2.0,
        "blend": True,
        "threshold": 0.3,
        "max_pool": 3,
    }
    assert (
        chosen["model"]["steps"] == 50 and chosen["model"]["guidance_scale"] == 7.5 and chosen["seed"] == 1234
    )


@pytest.mark.parametrize(
    ("words", "name", "rate"),
    [
        (["--model.optimizer", "adam"], "Adam", 0.01),
        (["--model.optimizer", "adam", "--model.learning_rate", "0.1"], "Adam", 0.1),
        (["--model.optimizer", "normalised_gradient"], "NormalisedGradient", 0.002),
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.3"], "SGD", 0.3),
    ],
)
def test_the_inner_optimiser_has_a_name_or_is_a_class(words, name, rate, settings):
    optimizer = settings(*words).methods["null_text"].optimizer([torch.zeros(1, requires_grad=True)])
    assert type(optimizer).__name__ == name and optimizer.param_groups[0]["lr"] == rate


def test_without_options_each_method_is_as_in_fit(settings):
    for name, method in settings().methods.items():
        assert method == find_compared(name)()
    assert {method.steps for method in settings("--model.steps", "7").methods.values()} == {7}


def test_device_precision_and_size_have_an_old_spelling(settings):
    new = settings("--device", "cpu", "--precision", "bf16", "--data.size", "48")
    old = settings("--model.device", "cpu", "--model.precision", "bf16", "--model.size", "48")
    for found in (new, old):
        assert (found.device, found.precision, found.data.size) == ("cpu", "bf16", 48)
    assert (settings().device, settings().precision, settings().data.size) == ("auto", "32-true", None)


def test_each_method_has_its_own_options_and_a_config_may_have_those_of_others(settings):
    found = settings("--config", "benchmark", "--methods", "ddim,negative_prompt", "--model.corrections", "2")
    assert (
        list(found.methods) == ["ddim", "negative_prompt"]
        and found.methods["negative_prompt"].corrections == 2
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.benchmark=pie_bench"], "--data.folder"),
        (["--data.benchmark=pie_bench", "--data.folder=/no/where"], "/no/where"),
        (["--config=benchmark", "--data.folder=/no/where"], "/no/where"),
        (["--methods=ddim,edict"], "edict"),
        (["--methods=ddim", "--baseline=direct"], "--baseline direct is none of ddim"),
        (["--config=benchmark", "--finished.theirs=/no/where"], "no folder of finished pictures /no/where"),
        (["--methods=none"], "no methods are named"),
        (["--methods"], "--methods needs a value, such as --methods ddim,null_text"),
        (["--editing=roughly"], "roughly"),
        (["--data.limit=many"], "data.limit"),
        (["--model.stepps=3"], "did you mean --model.steps"),
        (["--model.steps=0"], "between 1 and 1000"),
        (["--model.pretrained=/no/model"], "/no/model"),
        (["--model.device=abacus"], "abacus"),
        (["--device=abacus"], "abacus"),
        (["--precision=half"], "32-true, bf16-mixed, 16-mixed"),
        (["--batch_size=0"], "batch_size"),
        (["--model.learning_rate=0.1"], "--model.optimizer normalised_gradient, adam"),
        (["--config=nothing"], "nothing"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words, message, tmp_path, capsys):
    assert main(["test", *words, f"--output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1, error
    assert not (tmp_path / "out").exists()


def test_a_folder_of_ones_own_is_compared_with_the_shipped_config_and_nothing_is_drawn(
    tmp_path, tiny_sd, capsys
):
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (40, 40), "green").save(mine / "sheep.png")
    (mine / "sheep.txt").write_text("a photo of a sheep")
    words = [
        "--model.pretrained",
        str(tiny_sd),
        "--model.steps=2",
        "--metrics.clip=null",
        "--methods",
        "ddim,direct",
    ]
    words += ["--data.folder", str(mine), f"--output={tmp_path / 'out'}"]
    assert main(["test", "--config", "benchmark.yaml", *words]) == 0
    assert sorted(path.name for path in mine.iterdir()) == ["sheep.png", "sheep.txt"]
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 1 + 2
    text = capsys.readouterr().out
    assert "Protocol p" in text and "0 edits of 1 pictures" in text
    assert "left out: clip_whole: no CLIP model was named" in text and "Reconstruction" in text
