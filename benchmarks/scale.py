"""What many pictures take: one process against two, and the disk that an inversion needs.

    python benchmarks/scale.py --pictures 24 --broken 3 --devices 1 2

Draws scenes of the farmyard into a folder, some of them broken, and runs ``fit`` on it once for each number of
devices, one thread each. Prints the seconds of each run, whether all of them left the same bits, and what an inversion
takes on the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
from nulltext.runs.finished import ARTIFACT

MAIN = Path(__file__).resolve().parents[1] / "main.py"
FIRST_SEED = HELD_OUT_SEEDS.start + 800_000


def draw_folder(folder: Path, pictures: int, broken: int) -> None:
    """Scenes as PNG, each with its caption beside it; the last few are no pictures."""
    folder.mkdir()
    for k in range(pictures):
        path = folder / f"scene{k:03d}.png"
        scene = random_scene(FIRST_SEED + k)
        path.with_suffix(".txt").write_text(caption(scene))
        if k < pictures - broken:
            draw(scene).save(path)
        else:
            path.write_bytes(b"\x89PNG\r\n\x1a\n")


def fit(room: Path, pretrained: str, devices: int) -> tuple[float, int, Path]:
    """Seconds, exit code and run folder of a run on so many devices, one thread each."""
    folder = room / f"devices{devices}"
    folder.mkdir()
    words = ["fit", "--config", "nulltext.yaml", "--model.pretrained", pretrained]
    words += ["--data.image", str(room / "farm"), "--data.batch_size", "1"]
    words += ["--trainer.devices", str(devices), "--trainer.accelerator", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    command = [sys.executable, str(MAIN), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    print(done.stdout[-2000:] + done.stderr[-2000:] if done.returncode not in (0, 1) else "", end="")
    return seconds, done.returncode, folder / "lightning_logs/version_0"


def artifacts(run: Path) -> dict[str, bytes]:
    """The inversions of a run by their picture's name."""
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob(f"*/{ARTIFACT}"))}


def main() -> None:
    """Runs a folder on each number of devices, compares what they left, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", default="farmyard")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--broken", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        draw_folder(Path(name) / "farm", words.pictures, words.broken)
        runs = {devices: fit(Path(name), words.pretrained, devices) for devices in words.devices}
        left = {devices: artifacts(run) for devices, (_, _, run) in runs.items()}
    expected, first = left[words.devices[0]], runs[words.devices[0]][0]
    for devices, (seconds, code, _) in runs.items():
        same = "the same bits" if left[devices] == expected else "OTHER BITS"
        share, found = seconds / first, f"{len(left[devices])} inversions"
        print(f"{devices} devices: {seconds:.1f} s ({share:.2f} of the first), exit {code}, {found}, {same}")
    mean = sum(map(len, expected.values())) / len(expected)
    print(f"an inversion takes {mean / 1024:.0f} KiB in fp32")


if __name__ == "__main__":
    main()
