"""A stranger's method, metric, kind of edit and model family, by import path from the working folder."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nulltext.cli import main
from nulltext.inversion.file import Inversion

ROOT = Path(__file__).parents[2]
TOYS = '''
"""Four toys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from nulltext.editing.kinds.refine import Refine
from nulltext.inversion import InversionMethod
from nulltext.metrics.base import Metric
from nulltext.models.families.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class Between(InversionMethod):
    """The null text lies between the empty prompt and the source prompt.

    Args:
        share: 0 the empty prompt, 1 the source prompt.
    """

    share: float = 0.5
    title: ClassVar[str] = "between"

    def null_text(self, model, cond, size):
        return type(cond).lerp(super().null_text(model, cond, size), cond, self.share)


class Brightness(Metric):
    """The mean of all pixels."""

    name = "brightness"
    title = "Brightness"
    tables = ("reconstruction",)

    def __call__(self, outputs, reference):
        return outputs.mean(dim=(1, 2, 3))


class Gentle(Refine):
    """Refine, with half of the attention windows."""

    def control(self, source, target, steps):
        return super().control(source, target, steps)


class Dim(StableDiffusion):
    """A network whose output is a little smaller."""

    calls: ClassVar[list[int]] = []

    def network(self, z, t, text):
        self.calls.append(len(z))
        return 0.9 * super().network(z, t, text)
'''


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A working folder with the toys and a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "toys", raising=False)
    Path("toys.py").write_text(TOYS)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Path("farm").mkdir()
    Image.fromarray(pixels).save("farm/barn.png")
    Path("farm/barn.txt").write_text("a red barn")
    yield tmp_path
    sys.modules.pop("toys", None)


def test_a_method_brings_its_own_options_and_a_family_its_network(room, tiny_sd, capsys):
    words = ["--model.pretrained", str(tiny_sd), "--model.steps", "2", "--model.family", "toys.Dim"]
    image = ["--data.image", "farm/barn.png"]
    assert main(["fit", *words, *image, "--model.method", "toys.Between", "--model.share", "0.25"]) == 0
    made = Inversion.load(Path("lightning_logs/version_0/barn/inversion.safetensors"))
    assert made.method == "toys.Between" and made.settings["share"] == 0.25
    assert sys.modules["toys"].Dim.calls and made.family == "toys.Dim"
    sys.modules["toys"].Dim.calls.clear()
    words_of_edit = ["--prompt", "a blue barn", "--kind", "plain", "--method", "toys.Between"]
    assert main(["edit", "--inversion", "lightning_logs/version_0", *words_of_edit]) == 0
    assert sys.modules["toys"].Dim.calls  # the file named its family
    assert main(["fit", "--config", "lightning_logs/version_0/config.yaml"]) == 0
    again = Inversion.load(Path("lightning_logs/version_1/barn/inversion.safetensors"))
    assert again.noise.equal(made.noise) and again.settings == made.settings
    assert main(["fit", *words, *image, "--model.method", "toys.Between", "--model.sharp", "1"]) == 2
    assert "did you mean --model.share?" in capsys.readouterr().err


def test_an_edit_of_a_strangers_kind_under_a_strangers_method(room, tiny_sd, capsys):
    words = ["--model.pretrained", str(tiny_sd), "--model.steps", "2", "--data.image", "farm/barn.png"]
    assert main(["fit", *words, "--model.method", "toys.Between"]) == 0
    edit = ["edit", "--inversion", "lightning_logs/version_0", "--prompt", "a red barn in snow"]
    assert main([*edit, "--kind", "toys.Gentle", "--method", "toys.Between", "--name", "snow"]) == 0
    facts = json.loads(Path("lightning_logs/version_0/barn/edits/snow.json").read_text())
    assert facts["kind"] == "toys.Gentle" and facts["method"] == "toys.Between"
    assert main([*edit, "--kind", "toys.Harsh"]) == 2
    assert "toys.Harsh" in capsys.readouterr().err


def test_a_comparison_with_a_strangers_method_metric_and_family(room, tiny_sd, capsys):
    words = ["test", "--model.pretrained", str(tiny_sd), "--model.steps", "2", "--model.family", "toys.Dim"]
    words += [
        "--data.folder",
        "farm",
        "--output",
        "out",
        "--metrics.clip",
        "null",
        "--metrics.own",
        "toys.Brightness",
    ]
    assert main([*words, "--methods", "ddim,toys.Between", "--model.share", "0.25"]) == 0
    with Path("out/results.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"ddim", "Between"}
    for method, row in rows.items():
        with Image.open(next(Path("out").rglob(f"*{method}*reconstruction*.png"))) as picture:
            brightness = np.asarray(picture.convert("RGB"), dtype=np.float64).mean() / 255
        assert float(row["brightness"]) == pytest.approx(brightness, abs=1e-4)
    assert "Brightness" in capsys.readouterr().out
    assert sorted(path.name for path in Path("farm").iterdir()) == ["barn.png", "barn.txt"]


def test_the_working_folder_is_searched_last_however_the_program_is_started(room):
    Path("json.py").write_text("raise SystemExit('the folder stands for a library')")
    words = ["fit", "--model.method", "toys.Between", "--model.share", "0.25", "--print_config"]
    script = "import sys; sys.path = [p for p in sys.path if p]; sys.argv[0] = 'nulltext'; "
    script += "from nulltext.cli import main; sys.exit(main())"
    for command in ([sys.executable, "-c", script], [sys.executable, str(ROOT / "main.py")]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["model"]["share"] == 0.25
