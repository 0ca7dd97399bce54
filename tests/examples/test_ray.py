"""The example under Ray, on a cluster of this machine alone."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/ray_inversion.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ray_inversion", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the following arguments are required: manifest"),
        (["m.jsonl", "--worker", "many"], "invalid int value: 'many'"),
        (["m.jsonl", "--precision", "8"], "--precision: invalid choice: '8'"),
        (["m.jsonl", "--settings", "steps=4"], "--settings: invalid mapping value: 'steps=4'"),
        (["m.jsonl", "--settings", "[4]"], "--settings: invalid mapping value: '[4]'"),
        (
            ["m.jsonl", "--settings", '{"step": 4}'],
            "unexpected keyword argument 'step'; there are method, steps, guidance_scale",
        ),
        (["m.jsonl", "--settings", '{"steps": "4"}'], "--settings: '<=' not supported"),
        (["m.jsonl", "--settings", '{"method": "none"}'], "'none' is not one of null_text, negative_prompt"),
        (["m.jsonl", "--settings", '{"steps": 0}'], "steps must be between 1 and 1000, not 0"),
        (["m.jsonl", "--workers", "0"], "--workers 0 --num_gpus 0 leave nobody to work"),
        (["m.jsonl", "--pretrained", "."], "model_index.json"),
        (["m.jsonl"], "m.jsonl" if find_spec("ray") else "pip install 'nulltext[ray]'"),
    ],
)
def test_a_mistake_is_one_line_before_ray_starts(
    words: list[str],
    said: str,
    example: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert example.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_two_pictures_of_one_name_do_not_share_a_folder(
    example: ModuleType, tiny_sd: Path, tmp_path: Path
) -> None:
    """Of two manifests, which know nothing of each other, with one output folder."""
    worker = example.Inverter(
        str(tmp_path / "out"), str(tiny_sd), "32-true", "cpu", {"steps": 2, "inner_steps": 0}
    )
    rows = []
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        Image.effect_noise((32, 32), 50 + k).convert("RGB").save(tmp_path / f"{k}/sheep.png")
        rows.append(worker.row(str(tmp_path / f"{k}/sheep.png"), "sheep", "a sheep"))
    assert [row["reason"] for row in rows] == ["", ""]
    assert rows[0]["folder"] == "sheep" and rows[1]["folder"].startswith("sheep-")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    again = [worker.row(str(tmp_path / f"{k}/sheep.png"), "sheep", "a sheep") for k in range(2)]
    for old, new in zip(rows, again, strict=True):
        assert (old["folder"], old["psnr"]) == (new["folder"], new["psnr"])
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(before) == 2


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_ray_gives_the_tensors_of_one_process_and_does_nothing_twice(tiny_sd: Path, tmp_path: Path) -> None:
    rows = []
    for k in range(3):
        Image.effect_noise((32, 32), 50 + k).convert("RGB").save(tmp_path / f"{k}.png")
        rows.append({"file_name": f"{k}.png", "prompt": f"a sheep, number {k}"})
    rows.append({"file_name": "none.png", "prompt": "x"})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [sys.executable, str(EXAMPLE), "metadata.jsonl", "--workers", "2"]
    words += ["--pretrained", str(tiny_sd), "--settings", '{"steps": 4, "inner_steps": 2}']
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run() -> list[dict[str, object]]:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 1 and "3 of 4 pictures" in done.stdout, done.stdout + done.stderr
        return [json.loads(line) for line in (tmp_path / "inversions/results.jsonl").read_text().splitlines()]

    results = run()
    assert [row["name"] for row in results] == ["0", "1", "2", "none"]
    assert "no such picture" in str(results[3]["reason"])
    torch.set_num_threads(1)
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    for k in range(3):
        expected = invert(
            model,
            tmp_path / f"{k}.png",
            prompt=f"a sheep, number {k}",
            method=NullText(steps=4, inner_steps=2),
        )
        found = Inversion.load(tmp_path / f"inversions/{k}/inversion.safetensors")
        torch.testing.assert_close(found.null_embeddings, expected.null_embeddings, atol=1e-5, rtol=0)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.safetensors"))]
    run()
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.safetensors"))] == times
