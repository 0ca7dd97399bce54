"""What the benchmarks have in common: a stopwatch, measurements in processes of their own, options and outputs."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nulltext.errors import UserError
from nulltext.files import write_text

SPEED = Path(__file__).with_name("speed.py")


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Starts to measure; the function returned gives the seconds since, what was begun on CUDA finished."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    return lambda: (wait(), time.perf_counter() - started)[1]


def device_words(device: torch.device) -> str:
    """What computed, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def median_seconds(device: torch.device, work: Callable[[], Any], repeats: int) -> float:
    """The median time of a piece of work."""
    seconds = []
    for _ in range(repeats):
        elapsed = stopwatch(device)
        work()
        seconds.append(elapsed())
    return statistics.median(seconds)


@contextmanager
def room(keep: Path | None) -> Iterator[Path]:
    """The folder of finished rows: one to keep, or one that goes."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    with nullcontext(keep) if keep else TemporaryDirectory() as folder:
        yield Path(folder)


def measure_apart(method: str, argv: Sequence[str], folder: Path) -> tuple[Any, Path]:
    """Measures one method in a process of its own; gives what it found and the file of its tensors.

    What the folder has of an earlier run is not measured again.
    """
    found = folder / f"{method}.json"
    if found.is_file():
        return json.loads(found.read_text()), found.with_suffix(".safetensors")
    command = [sys.executable, "-W", "ignore", str(SPEED), *argv, "--only", method, "--to", str(found)]
    print(f"measuring {method} ...", file=sys.stderr, flush=True)
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"the measurement of {method} failed; see above")
    return json.loads(found.read_text()), found.with_suffix(".safetensors")


def options_of(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=formatter)
    parser.add_argument("--model", default="farmyard", help="farmyard, a diffusers folder, or a hub id")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json as well")
    return parser


def publish(text: str, data: Any, out: Path | None) -> None:
    """Prints a table, and writes it and its data where ``--out`` says."""
    print(text)
    if out:
        write_text(out.with_suffix(".md"), text)
        write_text(out.with_suffix(".json"), json.dumps(data, indent=1) + "\n")


def in_one_line(work: Callable[[], object]) -> int:
    """Runs a benchmark; a user's mistake is one line and exit code 2."""
    try:
        work()
    except (UserError, OSError, ModuleNotFoundError) as error:
        hint = "; pip install 'nulltext[eval]'" if isinstance(error, ModuleNotFoundError) else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        return 2
    return 0
