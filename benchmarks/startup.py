"""How long a verb takes before it does anything, here or in another checkout: ``--source FOLDER``."""

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("main.py --help", "main.py fit --help", "main.py edit --help", "-c 'import nulltext'")


def seconds(words: list[str], root: Path) -> tuple[float, float]:
    """Seconds of processor and of the clock of one process."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    after, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"median of {options.repeats}\n\n| command | processor, s | clock, s |\n|---|---|---|")
    for title in COMMANDS:
        runs = [seconds(shlex.split(title), options.source.resolve()) for _ in range(options.repeats)]
        processor, clock = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {title} | {processor:.2f} | {clock:.2f} |")


if __name__ == "__main__":
    main()
