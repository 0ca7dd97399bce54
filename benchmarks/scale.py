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
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", default="farmyard")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--broken", type=int, default=3)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        devices_compared(Path(name), words)


def devices_compared(room: Path, words: argparse.Namespace) -> None:
    """Runs a folder on each number of devices, compares what they left, and prints."""
    draw_folder(room / "farm", words.pictures, words.broken)
    runs = {devices: fit(room, words.pretrained, devices) for devices in words.devices}
    first, _, run = runs[words.devices[0]]
    expected = artifacts(run)
    for devices, (seconds, code, folder) in runs.items():
        same = "the same bits" if artifacts(folder) == expected else "OTHER BITS"
        print(
            f"{devices} devices: {seconds:.1f} s ({seconds / first:.2f} of the first), exit code {code}, "
            f"{len(artifacts(folder))} inversions, {same}"
        )
    sizes = [len(content) for content in expected.values()]
    print(f"an inversion takes {sum(sizes) / len(sizes) / 1024:.0f} KiB in fp32")


if __name__ == "__main__":
    main()
