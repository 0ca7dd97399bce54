"""The example under Ray, on a cluster of this machine alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from nulltext.backbone import Backbone
from nulltext.inversion import Inversion, InversionSettings, invert

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_ray_gives_the_tensors_of_one_process_and_does_nothing_twice(tiny_sd: Path, tmp_path: Path) -> None:
    rows = []
    for k in range(3):
        Image.effect_noise((32, 32), 50 + k).convert("RGB").save(tmp_path / f"{k}.png")
        rows.append({"file_name": f"{k}.png", "prompt": f"a sheep, number {k}"})
    rows.append({"file_name": "none.png", "prompt": "x"})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [sys.executable, str(ROOT / "examples/ray_inversion.py"), "metadata.jsonl", "--workers", "2"]
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
    backbone = Backbone.from_pretrained(str(tiny_sd))
    for k in range(3):
        expected = invert(
            backbone,
            tmp_path / f"{k}.png",
            prompt=f"a sheep, number {k}",
            settings=InversionSettings(steps=4, inner_steps=2),
        )
        found = Inversion.load(tmp_path / f"inversions/{k}/inversion.safetensors")
        torch.testing.assert_close(found.null_embeddings, expected.null_embeddings, atol=1e-5, rtol=0)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.safetensors"))]
    run()
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.safetensors"))] == times
