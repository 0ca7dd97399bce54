"""Seconds, medians of three runs, that commands take here and, by turns, in another checkout: ``--source FOLDER``."""

import argparse
import os
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parents[1]
EDIT = "edit --inversion lightning_logs/version_0 --swap sheep:horse"


def _seconds(command: str, root: Path, folder: str) -> tuple[float, float, float]:
    words, started = [sys.executable, root / "main.py", *command.split()], time.perf_counter()
    with Popen(words, cwd=folder, env=os.environ | {"PYTHONPATH": f"{root}/src"}, stdout=PIPE).stdout as out:
        said = [time.perf_counter() - started for _ in out]  # when each line came
    _, status, used = os.wait3(0)
    assert status == 0, command
    return used.ru_utime + used.ru_stime, time.perf_counter() - started, said[0]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=HERE)
    roots = list(dict.fromkeys([parser.parse_args().source.resolve(), HERE]))
    print("| command | of | processor, s | clock, s | first line, s |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for command in ("--help", "fit --help", "edit --help", f"fit --data.image {HERE}/sheep.jpg", EDIT):
            runs = [[_seconds(command, root, folder) for root in roots] for _ in range(3)]
            for root, *took in zip(roots, *runs, strict=True):
                medians = (f"{sorted(column)[1]:.2f} |" for column in zip(*took, strict=True))
                print(f"| {command.replace(f'{HERE}/', '')} | {root} |", *medians, flush=True)


if __name__ == "__main__":
    main()
