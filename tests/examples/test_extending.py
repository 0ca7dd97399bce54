"""The page docs/extending.md: its classes are defined and its commands run, with a tiny model."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltext.cli import main
from nulltext.inversion.file import Inversion

PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text(encoding="utf-8")
CODE = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"```sh\n(.*?)\n```", PAGE, re.DOTALL)]
RUN = Path("lightning_logs/version_0/sheep")


@pytest.fixture
def room(tmp_path: Path, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with ``mine.py``, a picture, and a folder of pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(CODE)
    Path("farm").mkdir()
    for name in ("sheep.jpg", "farm/sheep.png"):
        Image.effect_noise((32, 32), 50).convert("RGB").save(name)
        Path(name).with_suffix(".txt").write_text("a photo of a white sheep")
    yield tmp_path
    sys.modules.pop("mine", None)


def run(words: list[str], tiny_sd: Path) -> None:
    """A command of the page, with the tiny model in two steps."""
    verb, *rest = words
    rest = [{"FOLDER": str(tiny_sd), "FARM": "farm"}.get(word, word) for word in rest]
    if verb != "edit":
        rest += ["--model.pretrained", str(tiny_sd), "--model.steps", "2"]
    if verb == "test":
        rest += ["--metrics.clip", "null"]
    assert main([verb, *rest]) == 0


def test_the_method_the_kind_and_the_region_of_the_page(room: Path, tiny_sd: Path) -> None:
    fit, fade, lower_half = COMMANDS[:3]
    run(fit, tiny_sd)
    made = Inversion.load(RUN / "inversion.safetensors")
    assert made.method == "mine.Between" and made.settings["share"] == 0.8
    run(fade, tiny_sd)
    run(lower_half, tiny_sd)
    facts = [json.loads(path.read_text()) for path in sorted((RUN / "edits").glob("*.json"))]
    assert [f["kind"] for f in facts if f["local_blend"] is None] == ["mine.Fade"]
    (region,) = (f["local_blend"] for f in facts if f["local_blend"] is not None)
    assert "mine.LowerHalf" in region
    (mask,) = (RUN / "edits").glob("*-mask.png")
    with Image.open(mask) as picture:
        rows = torch.tensor(list(picture.convert("L").getdata())).reshape(picture.size[::-1]).float().mean(1)
    assert rows[len(rows) // 2 + 1 :].mean() > rows[: len(rows) // 2 - 1].mean()


def test_the_metric_of_the_page(room: Path, tiny_sd: Path) -> None:
    run(COMMANDS[3], tiny_sd)
    with Path("out/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"ddim", "Between"}
    assert all(0 <= float(row["colour_shift"]) <= 1 for row in rows)


def test_the_family_of_the_page(room: Path, tiny_sd: Path) -> None:
    run(COMMANDS[4], tiny_sd)
    made = Inversion.load(RUN / "inversion.safetensors")
    assert made.null_embeddings.shape[0] == 2 and torch.isfinite(made.null_embeddings).all()


def test_the_page_names_every_dict_and_its_file() -> None:
    source = Path(__file__).parents[2] / "src/nulltext"
    for name, file in (
        ("METHODS", "inversion/__init__.py"),
        ("KINDS", "editing/kinds/__init__.py"),
        ("REGIONS", "editing/regions/__init__.py"),
        ("METRICS", "metrics/table.py"),
        ("MODELS", "models/families/__init__.py"),
    ):
        assert f"`{name}`" in PAGE and f"\n{name}: dict[" in (source / file).read_text()
