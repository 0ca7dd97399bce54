"""What many pictures take: one process against two, and the disk that an inversion needs.

    python benchmarks/scale.py --pictures 24 --broken 3 --devices 1 2
    python benchmarks/scale.py --many 100 2000        # what a large folder costs beside the inversions themselves
    python benchmarks/scale.py --storage              # what an inversion of each family takes, computed

Draws scenes of the farmyard into a folder, some of them broken, and runs ``fit`` on it once for each number of
devices, one thread each. Prints the seconds of each run, whether all of them left the same bits, what an inversion
takes on the disk, and what the reconstruction would lose if its embeddings were stored in 16 bits. ``--many`` inverts
nothing: it times what a run does for each picture of a folder besides.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone
from nulltext.data import PictureData
from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
from nulltext.finished import ARTIFACT, finished_names
from nulltext.inversion import reconstruct
from nulltext.pictures import read_picture
from nulltext.result_files import METRICS, add_row

MAIN = Path(__file__).resolve().parents[1] / "main.py"
FIRST_SEED = HELD_OUT_SEEDS.start + 800_000
NUMBERS = 14  # columns of metrics.csv that are numbers
ROWS = 5  # of which the time is the mean
FAMILIES = (  # name, T, width of a token's embedding, side in pixels, numbers of a pooled embedding
    ("Stable Diffusion 1.x", 20, 768, 512, 0),
    ("Stable Diffusion 1.x", 50, 768, 512, 0),
    ("Stable Diffusion 2.1", 20, 1024, 768, 0),
    ("SDXL", 20, 2048, 1024, 1280),
)


def draw_folder(folder: Path, pictures: int, broken: int, side: int) -> None:
    """Scenes as PNG, each with its caption beside it; the last few are no pictures."""
    folder.mkdir()
    for k in range(pictures):
        path = folder / f"scene{k:03d}.png"
        scene = random_scene(FIRST_SEED + k)
        path.with_suffix(".txt").write_text(caption(scene))
        if k < pictures - broken:
            draw(scene, side).save(path)
        else:
            path.write_bytes(b"\x89PNG\r\n\x1a\n")


def fit(room: Path, pretrained: str, devices: int, config: str) -> tuple[float, int, Path]:
    """Seconds, exit code and run folder of a run on so many devices, one thread each."""
    folder = room / f"devices{devices}"
    folder.mkdir()
    words = ["fit", "--config", config, "--model.pretrained", pretrained, "--data.image", str(room / "farm")]
    words += ["--trainer.devices", str(devices), "--trainer.accelerator", "cpu", "--data.batch_size", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(MAIN), *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    print(done.stdout[-2000:] + done.stderr[-2000:] if done.returncode not in (0, 1) else "", end="")
    return seconds, done.returncode, folder / "lightning_logs/version_0"


def artifacts(run: Path) -> dict[str, bytes]:
    """The inversions of a run by their picture's name."""
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("*/inversion.safetensors"))}


@torch.no_grad()
def half_precision(run: Path, pretrained: str, room: Path) -> tuple[float, float, float]:
    """Mean PSNR in dB with embeddings of 32 and of 16 bits, and the largest loss of a picture."""
    backbone = Backbone.from_pretrained(pretrained)
    pairs = []
    for path in sorted(run.glob("*/inversion.safetensors")):
        inversion = Inversion.load(path)
        picture = read_picture(room / "farm" / f"{path.parent.name}.png", size=backbone.default_size)
        reached = []
        for nulls in (inversion.null_embeddings, inversion.null_embeddings.half().float()):
            z = reconstruct(backbone, Inversion(**{**vars(inversion), "null_embeddings": nulls}))
            mse = (backbone.decode_latents(z)[0] - picture.pixels).square().mean() / 4
            reached.append(float(-10 * mse.log10()))
        pairs.append(reached)
    whole, half = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return whole, half, max(one - other for one, other in pairs)


def overhead(room: Path, pictures: int, side: int) -> None:
    """Prints what a folder of so many pictures costs a run beside the inversions: the start, a restart, a row."""
    room.mkdir()
    (room / "farm").mkdir()
    image = draw(random_scene(FIRST_SEED), side)
    for k in range(pictures):
        image.putpixel((0, 0), (k & 255, k >> 8 & 255, k >> 16 & 255))  # no two alike
        image.save(room / "farm" / f"{k:07d}.png")
    data = PictureData(image=[room / "farm"], prompt="a picture")
    started = time.perf_counter()
    data.setup("fit")
    start = time.perf_counter() - started
    assert len(data.sources) == pictures

    facts = {"prompt": "a picture", "size": (64, 64), "crop": "center", "fingerprint": "", "timesteps": [1]}
    wanted = {}
    for source in data.sources:
        Inversion(
            null_embeddings=torch.zeros(1, 1, 1),
            noise=torch.zeros(4, 1, 1),
            guidance_scale=7.5,
            model="",
            scheduler={},
            source_sha256=source.sha256,
            **facts,
        ).save(room / "run" / source.name / ARTIFACT)
        wanted[source.name] = {**facts, "size": [64, 64], "source_sha256": source.sha256, "settings": {}}
    started = time.perf_counter()
    done, _ = finished_names(room / "run", wanted)
    restart = time.perf_counter() - started
    assert len(done) == pictures

    row = {"name": "", "prompt": "a white sheep on a meadow", **{f"number{k}": 2 / 3 for k in range(NUMBERS)}}
    table = room / "run" / METRICS
    lines = [",".join(row)] + [",".join(map(str, {**row, "name": name}.values())) for name in data.order]
    table.write_text("\n".join(lines[:-1]) + "\n")
    started = time.perf_counter()
    for name in data.order[-ROWS:]:
        add_row(table, {**row, "name": name}, data.order)
    a_row = (time.perf_counter() - started) / ROWS
    print(
        f"{pictures} pictures of {side} x {side}: found and decoded in {start:.1f} s "
        f"({1000 * start / pictures:.2f} ms each), a finished run of them looked through in {restart:.1f} s "
        f"({1000 * restart / pictures:.2f} ms each), the last row added to a {METRICS} of "
        f"{table.stat().st_size / 1e6:.2f} MB in {1000 * a_row:.1f} ms"
    )


def storage() -> None:
    """Prints what the tensors of an inversion take in fp32, by the shapes of each family."""
    for family, steps, width, side, pooled in FAMILIES:
        numbers = steps * 77 * width + 4 * (side // 8) ** 2 + pooled
        print(
            f"{family}, {side} x {side}, T = {steps}: {steps} x 77 x {width} embeddings and {4 * (side // 8) ** 2} of "
            f"noise are {4 * numbers / 1e6:.1f} MB; a million take {4 * numbers / 1e6:.1f} TB"
        )


def main() -> None:
    """Runs it and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", default="farmyard")
    parser.add_argument("--config", default="nulltext.yaml")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--broken", type=int, default=3)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--many", type=int, nargs="+", default=[], help="such as 100 2000; inverts nothing")
    parser.add_argument("--storage", action="store_true", help="computes only")
    words = parser.parse_args()
    if words.storage:
        storage()
    elif words.many:
        with tempfile.TemporaryDirectory() as name:
            for pictures in words.many:
                overhead(Path(name) / str(pictures), pictures, words.side)
    else:
        devices_compared(words)


def devices_compared(words: argparse.Namespace) -> None:
    """Runs a folder on each number of devices, compares what they left, and prints."""
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        draw_folder(room / "farm", words.pictures, words.broken, words.side)
        runs = {devices: fit(room, words.pretrained, devices, words.config) for devices in words.devices}
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
        whole, half, worst = half_precision(run, words.pretrained, room)
        print(
            f"PSNR {whole:.3f} dB; with embeddings in fp16 {half:.3f} dB, a picture loses {worst:.4f} dB at most"
        )


if __name__ == "__main__":
    main()
