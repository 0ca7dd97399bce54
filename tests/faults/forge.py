"""Runs command lines in forked children of one process that has everything imported, so that a run costs a second.

Started by ``Forge`` (below), in a mount namespace of its own where the system allows it. Reads one order a line as
JSON and answers in JSON. Orders: ``run`` (words, folder, kill after so many seconds by a signal, fill the disk before
a file is opened), ``mount`` (a small disk, also to resize it or make it read-only), ``unmount``, ``files``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 60.0  # a run of these tests takes two
BALLAST, PAGE = "ballast", 4096  # what fills a disk, and the least that a tmpfs gives


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    code: int  # the exit code; below 0 the signal that ended it
    seconds: float
    output: str

    @property
    def lines(self) -> list[str]:
        """The errors it printed."""
        return [line for line in self.output.splitlines() if line.startswith("nulltext: error:")]


class Forge:
    """The process that forks, seen from the tests."""

    def __init__(self, log: Path) -> None:
        apart = ["unshare", "-rm"] if _may_unshare() else []
        self.can_mount = bool(apart)
        self._log = log
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            [*apart, sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(
        self,
        folder: Path,
        *words: Any,
        after: float | None = None,
        when: Path | None = None,
        by: int = signal.SIGKILL,
        full_at: int | None = None,
    ) -> Ran:
        """Runs ``main.py`` with the words in a folder.

        Ends it after so many seconds, or when a file is there. Fills the disk before the k-th file is opened in that
        folder to be written, k = ``full_at``, counted from 1.
        """
        order = {
            "run": [str(word) for word in words],
            "folder": str(folder),
            "after": after,
            "when": None if when is None else str(when),
            "by": int(by),
            "full_at": full_at,
            "log": str(self._log),
        }
        return Ran(**self._order(order))

    def mount(self, folder: Path, kilobytes: int) -> None:
        """Puts an empty disk at a folder; only this process and its children see it."""
        self._order({"mount": f"size={kilobytes}k", "folder": str(folder)})

    def remount(self, folder: Path, options: str) -> None:
        """Changes that disk."""
        self._order({"mount": f"remount,{options}", "folder": str(folder)})

    def unmount(self, folder: Path) -> None:
        """Takes that disk away, with what is on it."""
        self._order({"unmount": str(folder)})

    def files(self, folder: Path) -> dict[str, str]:
        """Every file below a folder that this process sees, as hexadecimal bytes."""
        return self._order({"files": str(folder)})

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _order(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _may_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: F401
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    import nulltext.cli.fit  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            answer: Any = _run(order)
        elif "mount" in order:
            words = ["mount", "-t", "tmpfs", "-o", order["mount"], "tmpfs", order["folder"]]
            answer = subprocess.run(words, check=True, capture_output=True).returncode
        elif "unmount" in order:
            answer = subprocess.run(["umount", order["unmount"]], check=True, capture_output=True).returncode
        else:
            top = Path(order["files"])
            found = (path for path in sorted(top.rglob("*")) if path.is_file())
            answer = {str(path.relative_to(top)): path.read_bytes().hex() for path in found}
        print(json.dumps(answer), flush=True)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(order)
    end = started + (LIMIT_SECONDS if order["after"] is None else order["after"])
    by = signal.SIGKILL if order["after"] is None else order["by"]
    signalled = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if not signalled and order["when"] is not None and Path(order["when"]).exists():
            os.kill(child, order["by"])
            signalled = True
        if time.monotonic() >= end:
            os.kill(child, by)
            by, end = signal.SIGKILL, time.monotonic() + LIMIT_SECONDS
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    output = Path(order["log"]).read_text(errors="replace")
    return {"code": code, "seconds": time.monotonic() - started, "output": output}


def _child(order: dict[str, Any]) -> None:
    """Becomes the run; never returns."""
    code = 70
    try:
        log = os.open(order["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(order["folder"])
        random.seed(0)
        if order["full_at"] is not None:
            _fill_before(order["full_at"], Path(order["folder"]))
        from nulltext.cli import main

        code = main(order["run"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fill_before(count: int, disk: Path) -> None:
    """Fills the disk before the so-many-th file there is opened to be written; never emptied by this process."""
    left, seen = count, set()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        by_name = event == "open" and isinstance(arguments[0], str | bytes)  # not by an open file's number
        if not by_name or left <= 0:
            return
        path, flags = os.path.abspath(os.fsdecode(arguments[0])), arguments[2] or 0
        if not path.startswith(f"{disk}{os.sep}") or not flags & (os.O_WRONLY | os.O_RDWR):
            return
        if path in seen and not flags & os.O_APPEND:  # made by mkstemp, now opened to be filled: one write
            return
        seen.add(path)
        left -= 1
        if left == 0:
            print(f"full before {os.path.relpath(path, disk)}", flush=True)
            fill(disk)

    sys.addaudithook(watch)


def fill(disk: Path) -> None:
    """Writes one file there until nothing more fits."""
    with contextlib.suppress(OSError), (disk / BALLAST).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))


if __name__ == "__main__":
    _serve()
