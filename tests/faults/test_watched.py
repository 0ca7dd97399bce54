"""TensorBoard's own server reads over HTTP what a run is writing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import PROMPT

ROOT = Path(__file__).resolve().parents[2]
STEPS, INNER = 150, 2
PATIENCE = 200.0  # seconds


@contextmanager
def started(words: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen]:
    """A process that writes to a file, ended with the block."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """What a browser would ask of a TensorBoard."""

    def __init__(self, port: int) -> None:
        self.place = f"http://127.0.0.1:{port}/data"

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(
            f"{self.place}/{path}?{urllib.parse.urlencode(query)}", timeout=60
        ) as answer:
            return json.load(answer)

    def is_up(self) -> bool:
        try:
            return self.get("runs") == []
        except urllib.error.URLError:
            return False

    def steps(self, run: str, tag: str) -> list[int]:
        """The steps of a curve; none where the server has not seen the tag yet."""
        if tag not in self.get("plugin/scalars/tags").get(run, {}):
            return []
        return [step for _, step, _ in self.get("plugin/scalars/scalars", run=run, tag=tag)]


@pytest.mark.slow
def test_a_tensorboard_follows_a_run_over_http(tiny_sd: Path, tmp_path: Path) -> None:
    logs = tmp_path / "lightning_logs"
    logs.mkdir()
    port, end = free_port(), time.monotonic() + PATIENCE
    board = ["-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port)]
    fit = [str(ROOT / "main.py"), "fit", "--model.pretrained", str(tiny_sd), "--data.prompt", PROMPT]
    fit += ["--data.image", str(ROOT / "sheep.jpg")]
    fit += ["--model.steps", str(STEPS), "--model.inner_steps", str(INNER), "--model.tolerance", "0"]
    said_by_board, said_by_fit = tmp_path / "board.txt", tmp_path / "fit.txt"
    with started([*board, "--reload_interval", "1"], tmp_path, said_by_board) as watching:
        server = Server(port)
        while not server.is_up():
            assert watching.poll() is None and time.monotonic() < end, said_by_board.read_text()
            time.sleep(0.1)
        seen: list[list[int]] = []
        with started(fit, tmp_path, said_by_fit) as writing:
            while not seen or len(seen[-1]) < STEPS:
                over = writing.poll() is not None
                seen.append(server.steps("version_0", "loss/sheep"))
                assert time.monotonic() < end, f"{len(seen[-1])} of {STEPS} points, run over: {over}"
                time.sleep(0.1)
            assert writing.wait(60) == 0, said_by_fit.read_text()
        for steps in seen:
            assert steps == list(range(len(steps)))  # never a gap, never a point twice
        lengths = [len(steps) for steps in seen]
        assert lengths == sorted(lengths)
        grown = sorted(set(lengths) - {0, STEPS})
        assert len(grown) >= 3, "the server saw the run only when it was over"
        while len(inner := server.steps("version_0", "loss_inner/sheep")) < STEPS * INNER:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert inner == list(range(STEPS * INNER))
        assert watching.poll() is None
    for said in (said_by_board.read_text(), said_by_fit.read_text()):
        assert not any(word in said.lower() for word in ("traceback", "error", "exception", "corrupt")), said
    print(f"TensorBoard showed {len(grown)} lengths between 0 and {STEPS}: {grown}")
