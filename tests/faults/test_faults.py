"""Whatever happens to a run, what is there is whole, and a restart brings the rest, bit for bit."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPT
from PIL import Image

from nulltext.errors import UserError
from nulltext.inversion.file import Inversion
from nulltext.runs.checkpoints import read_checkpoint
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.folder import RunFolder
from nulltext.runs.results import METRICS_CSV
from nulltext.training.curves import written_events

sys.path.insert(0, str(Path(__file__).parent))
from forge import ROOT, Forge

SETTINGS = ["--model.steps", "4", "--model.inner_steps", "2", "--curves.images_every", "2"]
SETTINGS += ["--data.batch_size", "1"]  # so that bits do not depend on the pictures that come along
LAST = "lightning_logs/version_0/checkpoints/last.ckpt"
DISK_KILOBYTES = 8192  # more than a run of these writes


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    forge = Forge(tmp_path_factory.mktemp("forge") / "output.txt")
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures and one that is broken."""
    folder = tmp_path_factory.mktemp("farm")
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{k}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    return folder


def fit(model: Path, farm: Path, *more: Any) -> list[Any]:
    return [
        "fit",
        "--model.pretrained",
        model,
        "--data.image",
        farm,
        "--data.prompt",
        PROMPT,
        *SETTINGS,
        *more,
    ]


@pytest.fixture(scope="module")
def whole(
    forge: Forge, tiny_sd: Path, farm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The artifacts of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    ran = forge.run(folder, *fit(tiny_sd, farm))
    assert ran.code == 1 and "broken.png" in ran.output, ran.output  # 1: a picture could not be used
    found = artifacts(folder)
    assert sorted(found) == ["picture0", "picture1", "picture2"]
    return found


def artifacts(folder: Path) -> dict[str, bytes]:
    """The inversions of all runs below a folder, by the picture's name."""
    return {
        path.parent.name: path.read_bytes()
        for path in folder.glob("lightning_logs/*/*/inversion.safetensors")
    }


def check_every_file(run: Path) -> None:
    """Reads whatever a run has left so far; hidden files are those that were being written."""
    for path in run.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".safetensors":
            Inversion.load(path)
        elif path.suffix == ".ckpt":
            read_checkpoint(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            assert all(None not in row.values() for row in csv.DictReader(path.open()))


def go_on(folder: Path) -> list[str]:
    return ["--ckpt_path", "last"] if list(folder.glob("lightning_logs/*/checkpoints/last.ckpt")) else []


def kill_often(
    forge: Forge,
    words: list[Any],
    whole: dict[str, bytes],
    room: Path,
    kills: int,
    within: float = 1.3,
    code: int = 1,
) -> int:
    """Kills and restarts until it has been done so often and the last run is whole; returns the number of runs.

    Each kill comes ``within`` so many seconds of a start, at random; ``code`` is that of a run which nothing kills.
    """
    moments = random.Random(0)
    done = rounds = 0
    while done < kills:
        rounds += 1
        folder = room / f"round{rounds}"
        folder.mkdir()
        while True:
            after = moments.uniform(0.05, within) if done < kills else None
            ran = forge.run(folder, *words, *go_on(folder), after=after)
            for run in folder.glob("lightning_logs/*"):
                check_every_file(run)
            if ran.code != -signal.SIGKILL:
                break
            done += 1
        assert ran.code == code, ran.output
        assert artifacts(folder) == whole
        # a run killed before its first checkpoint leaves an empty folder, and the next one takes the next number
        (table,) = folder.glob("lightning_logs/*/metrics.csv")
        rows = list(csv.DictReader(table.open()))
        assert [row["name"] for row in rows] == sorted(whole)
    return rounds


def test_killed_at_random_and_restarted_it_ends_bit_for_bit(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    kill_often(forge, fit(tiny_sd, farm), whole, tmp_path, kills=4)


@pytest.mark.slow
def test_killed_a_hundred_times(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    started = time.monotonic()
    rounds = kill_often(forge, fit(tiny_sd, farm), whole, tmp_path, kills=100)
    print(f"100 SIGKILLs in {rounds} runs of 3 pictures, {time.monotonic() - started:.0f} s")


@pytest.mark.slow
def test_the_shipped_model_is_killed_ten_times(forge: Forge, tmp_path: Path) -> None:
    words = ["fit", "--config", "nulltext.yaml", "--data.image", ROOT / "sheep.jpg"]
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    ran = forge.run(undisturbed, *words)
    assert ran.code == 0, ran.output
    whole = artifacts(undisturbed)
    rounds = kill_often(forge, words, whole, tmp_path, kills=10, within=ran.seconds, code=0)
    print(f"10 SIGKILLs in {rounds} runs of sheep.jpg, of {ran.seconds:.1f} s each if left alone")


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code_and_it_says_how_to_go_on(
    by: int, code: int, forge: Forge, tiny_sd: Path, farm: Path, tmp_path: Path
) -> None:
    words = fit(tiny_sd, farm, "--model.steps", "100")
    ran = forge.run(tmp_path, *words, when=tmp_path / LAST, by=by)
    assert ran.code == code and "Traceback" not in ran.output, ran.output
    assert f"--ckpt_path {LAST}" in ran.output
    read_checkpoint(tmp_path / LAST)


def test_a_finished_folder_is_not_done_again_even_if_its_files_were_renamed(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(2):
        (pictures / f"picture{k}.png").write_bytes((farm / f"picture{k}.png").read_bytes())
    assert forge.run(tmp_path, *fit(tiny_sd, pictures)).code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("inversion.safetensors")}
    (pictures / "picture0.png").rename(pictures / "sheep.png")
    (pictures / "picture0.png").write_bytes(
        (farm / "picture2.png").read_bytes()
    )  # another under the old name
    ran = forge.run(tmp_path, *fit(tiny_sd, pictures, "--ckpt_path", "last"))
    assert ran.code == 0, ran.output
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("inversion.safetensors")}
    assert before.items() < after.items() and len(after) == 3
    assert sorted(artifacts(tmp_path).values()) == sorted(whole.values())


def test_what_was_deleted_from_a_run_is_made_again_and_nothing_else(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert forge.run(tmp_path, *fit(tiny_sd, farm)).code == 1
    run = tmp_path / "lightning_logs/version_0"
    before = {path.parent.name: path.stat().st_mtime_ns for path in run.glob("*/inversion.safetensors")}
    (run / "picture1/inversion.safetensors").unlink()
    (run / "picture2/inversion.safetensors").write_bytes(b"damaged")
    ran = forge.run(tmp_path, *fit(tiny_sd, farm, "--ckpt_path", "last"))
    assert ran.code == 1 and artifacts(tmp_path) == whole, ran.output
    assert (run / "picture0/inversion.safetensors").stat().st_mtime_ns == before["picture0"]


def small_disk(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], folder: Path, step: int
) -> int:
    """Gives the run a little more disk each time it fails for want of it; returns how often it did."""
    if not forge.can_mount:
        pytest.skip("this system lets nobody mount a disk of their own")
    forge.mount(folder, kilobytes=step)
    size, failures = step, 0
    while True:
        there = forge.files(folder)
        started = any(path.endswith("/checkpoints/last.ckpt") for path in there)
        more = ["--ckpt_path", "last"] if started else []
        ran = forge.run(folder, *fit(tiny_sd, farm, *more))
        if ran.code == 1:
            break
        assert ran.code == 2 and len(ran.lines) == 1 and "Traceback" not in ran.output, ran.output
        size, failures = size + step, failures + 1
        forge.remount(folder, f"size={size}k")
    found = {
        Path(path).parent.name: bytes.fromhex(content)
        for path, content in forge.files(folder).items()
        if path.endswith("/inversion.safetensors")
    }
    assert found == whole
    return failures


def test_a_full_disk_is_one_line_and_a_larger_one_brings_the_rest(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert small_disk(forge, tiny_sd, farm, whole, tmp_path, step=120) >= 3


@pytest.mark.slow
def test_the_disk_is_full_at_each_write_in_turn(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """One run for each file that is opened to be written, on a disk that is full from then on, and its restart."""
    if not forge.can_mount:
        pytest.skip("this system lets nobody mount a disk of their own")
    started, hit = time.monotonic(), []
    for k in itertools.count(1):
        disk, copy = tmp_path / f"disk{k}", tmp_path / f"copy{k}"
        disk.mkdir()
        forge.mount(disk, kilobytes=DISK_KILOBYTES)
        ran = forge.run(disk, *fit(tiny_sd, farm), full_at=k)
        full = [line for line in ran.output.splitlines() if line.startswith("full before ")]
        if not full:
            break
        hit.append(Path(full[0].removeprefix("full before ")))
        copy_out(forge, disk, copy)
        for run in copy.glob("lightning_logs/*"):
            check_every_file(run)
        if ran.code == 1:  # a file was opened once more with nothing left to write: all of the run is there
            assert artifacts(copy) == whole and "Traceback" not in ran.output, hit[-1]
            (run,) = copy.glob("lightning_logs/*")
            assert ("hparam/psnr_null_text", 0) in written_events(run), hit[-1]
            forge.unmount(disk)
            continue
        assert ran.code == 2 and len(ran.lines) == 1 and "Traceback" not in ran.output, ran.output
        forge.remount(disk, f"size={2 * DISK_KILOBYTES}k")
        more = ["--ckpt_path", "last"] if list(copy.glob("lightning_logs/*/checkpoints/last.ckpt")) else []
        again = forge.run(disk, *fit(tiny_sd, farm, *more))
        assert again.code == 1 and "Traceback" not in again.output, again.output
        copy_out(forge, disk, copy)
        assert artifacts(copy) == whole, hit[-1]
        forge.unmount(disk)
    assert ran.code == 1, ran.output  # it came through: there is no k-th write
    written = {re.sub(r"\.(\w+)\.\w{8}(\.\w+)$", r"\1\2", path.name) for path in hit}  # .last.abcdefgh.ckpt
    assert written >= {"config.yaml", "last.ckpt", METRICS_CSV, "metrics.json", "report.png", ARTIFACT}, (
        written
    )
    assert any(".tfevents." in name for name in written)
    print(f"the disk was full at each of {len(hit)} writes in turn, {time.monotonic() - started:.0f} s")


def copy_out(forge: Forge, disk: Path, to: Path) -> None:
    """What is on a disk that only the forge sees; hidden files are those that were being written."""
    for path, content in forge.files(disk / "lightning_logs").items():
        assert not Path(path).name.startswith("."), f"{path} was left behind"
        (to / "lightning_logs" / path).parent.mkdir(parents=True, exist_ok=True)
        (to / "lightning_logs" / path).write_bytes(bytes.fromhex(content))


def test_a_read_only_disk_is_one_line(forge: Forge, tiny_sd: Path, farm: Path, tmp_path: Path) -> None:
    if not forge.can_mount:
        pytest.skip("this system lets nobody mount a disk of their own")
    forge.mount(tmp_path, kilobytes=1000)
    forge.remount(tmp_path, "ro")
    ran = forge.run(tmp_path, *fit(tiny_sd, farm))
    assert ran.code == 2 and len(ran.lines) == 1 and "Traceback" not in ran.output, ran.output


def start(folder: Path, *words: Any, **variables: str) -> subprocess.Popen:
    """``main.py`` as a process of its own, one thread, with more environment variables."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *map(str, words)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def devices(folder: Path, model: Path, farm: Path) -> subprocess.Popen:
    return start(folder, *fit(model, farm, "--trainer.devices", "2", "--trainer.accelerator", "cpu"))


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in text.read_text().split()] if text.exists() else []


@pytest.mark.skipif(sys.platform != "linux", reason="finds the rank's process in /proc")
def test_a_dead_rank_is_named_and_one_process_brings_the_rest(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = devices(tmp_path, tiny_sd, farm)
    own = tmp_path / "lightning_logs/version_0/checkpoints/last-1.ckpt"
    while not own.exists() and process.poll() is None:
        time.sleep(0.002)
    (rank,) = children(process.pid)
    os.kill(rank, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"rank 1 of 2 (process {rank}) was ended by SIGKILL" in output
    check_every_file(tmp_path / "lightning_logs/version_0")
    assert 1 <= len(artifacts(tmp_path)) < 3
    ran = forge.run(tmp_path, *fit(tiny_sd, farm, "--ckpt_path", "last"))
    assert ran.code == 1 and artifacts(tmp_path) == whole, ran.output


@pytest.mark.slow
def test_two_devices_give_the_same_bits_as_one(
    tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = devices(tmp_path, tiny_sd, farm)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and output.count("broken.png") == 1, output
    assert artifacts(tmp_path) == whole
    rows = list(csv.DictReader((tmp_path / "lightning_logs/version_0/metrics.csv").open()))
    assert [row["name"] for row in rows] == ["picture0", "picture1", "picture2"]


@pytest.mark.slow
def test_processes_that_torchrun_started_agree_on_a_folder(
    tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    words = ["--standalone", "--nproc_per_node", "2", str(ROOT / "main.py")]
    words += map(str, fit(tiny_sd, farm, "--trainer.devices", "2", "--trainer.accelerator", "cpu"))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0  # a picture is broken, which torchrun calls a failure
    assert artifacts(tmp_path) == whole, done.stdout + done.stderr
    assert [run.name for run in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.slow
def test_two_processes_leave_the_rows_of_one(tmp_path: Path) -> None:
    words = "test --config benchmark.yaml --methods ddim,residual --model.steps 3 --data.limit 4 --batch_size 1".split()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
    }
    rows = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]):
        output = tmp_path / str(len(launcher))
        command = [sys.executable, *launcher, str(ROOT / "main.py"), *words, "--output", str(output)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        with (output / "results.csv").open(newline="", encoding="utf-8") as file:
            rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
        assert len(list((output / "records").iterdir())) == 4
    assert len(rows[0]) == 4 * 2 * 4 and rows[1] == rows[0]


def by_slurm(rank: int, nodes: int, job: int) -> dict[str, str]:
    """What srun tells a task of two on one node or on two, named so that the first is this machine."""
    a_node = 2 // nodes
    numbers = {"PROCID": rank, "LOCALID": rank % a_node, "NODEID": rank // a_node, "NTASKS": 2}
    numbers |= {"NTASKS_PER_NODE": a_node, "NNODES": nodes, "JOB_ID": job, "STEP_ID": 0}
    words = {"JOB_NAME": "invert", "NODELIST": "localhost,elsewhere" if nodes == 2 else "localhost"}
    return {f"SLURM_{name}": str(value) for name, value in {**numbers, **words}.items()}


def free_job() -> int:
    """A number of a job whose port, which Lightning makes of its last four digits, nobody listens at."""
    while True:
        job = random.SystemRandom().randrange(10_000, 100_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("localhost", 15_000 + job % 10_000))
            return job


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_processes_that_slurm_started_give_the_bits_of_one(
    nodes: int, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    job = free_job()
    words = fit(tiny_sd, farm, "--trainer.accelerator", "cpu")
    words += ["--trainer.devices", 2 // nodes, "--trainer.num_nodes", nodes]
    processes = [start(tmp_path, *words, **by_slurm(rank, nodes, job)) for rank in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert artifacts(tmp_path) == whole, outputs
    (run,) = (tmp_path / "lightning_logs").iterdir()  # one folder, which they agreed on
    assert [row["name"] for row in csv.DictReader((run / METRICS_CSV).open())] == sorted(whole)
    assert sorted(process.returncode for process in processes) == [0, 1], (
        outputs
    )  # 1: whose picture is broken
    assert sum(output.count("skipped") for output in outputs) == 1, outputs
    assert (run / "checkpoints/last.ckpt").is_file() and (run / "checkpoints/last-1.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_that_start_at_once_in_a_folder_do_not_meet(
    tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    processes = [start(tmp_path, *fit(tiny_sd, farm)) for _ in range(3)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1, 1], outputs  # 1: a picture is broken
    runs = sorted((tmp_path / "lightning_logs").iterdir())
    assert [run.name for run in runs] == ["version_0", "version_1", "version_2"]
    for run in runs:
        check_every_file(run)
        assert {path.parent.name: path.read_bytes() for path in run.glob(f"*/{ARTIFACT}")} == whole
        assert [row["name"] for row in csv.DictReader((run / METRICS_CSV).open())] == sorted(whole)


@pytest.mark.slow
def test_of_two_that_go_on_with_a_run_at_once_one_is_refused(
    forge: Forge, tiny_sd: Path, farm: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    stopped = forge.run(tmp_path, *fit(tiny_sd, farm), when=tmp_path / LAST)
    assert stopped.code == -signal.SIGKILL, stopped.output
    words = fit(tiny_sd, farm, "--ckpt_path", "last")
    first = start(tmp_path, *words)
    run = tmp_path / "lightning_logs/version_0"
    before = (run / "config.yaml").stat().st_mtime_ns
    while (run / "config.yaml").stat().st_mtime_ns == before and first.poll() is None:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # holds the folder for as long as it takes
    try:
        refused = forge.run(tmp_path, *words)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    output, _ = first.communicate(timeout=60)
    assert refused.code == 2 and "another process is at work" in refused.output, refused.output
    assert len(refused.lines) == 1 and "Traceback" not in refused.output
    assert first.returncode == 1 and artifacts(tmp_path) == whole, output


def test_two_runs_that_start_at_once_take_a_folder_each_and_none_joins_another(tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path), RunFolder(tmp_path)
    assert one.folder == two.folder  # neither is there yet
    assert one.claim() != two.claim()
    again = RunFolder(tmp_path, one.folder)
    with pytest.raises(UserError, match="another process is at work"):
        again.claim()
    one.finalize("success")
    assert again.claim() == one.folder
    again.finalize("success")
    two.finalize("success")


def test_in_batches_the_pictures_come_out_as_one_by_one(
    forge: Forge, tiny_sd: Path, farm: Path, tmp_path: Path
) -> None:
    """To what the kernels' roundings allow, which the random weights of the tiny model amplify.

    With the normalised gradient, whose steps are in proportion to the gradient: its embeddings move by 0.03 and agree
    to 2e-6. The default optimiser sets its learning rate by differences of gradients, where roundings count more, and
    misses the bound of 1e-4.
    """
    pinned = ["--model.optimizer", "nulltext.inversion.methods.optimizers.NormalisedGradient"]
    for size in ("1", "2"):
        (tmp_path / size).mkdir()
        ran = forge.run(tmp_path / size, *fit(tiny_sd, farm, *pinned, "--data.batch_size", size))
        assert ran.code == 1, ran.output
    for k in range(3):
        file = f"lightning_logs/version_0/picture{k}/{ARTIFACT}"
        alone, batched = Inversion.load(tmp_path / "1" / file), Inversion.load(tmp_path / "2" / file)
        torch.testing.assert_close(batched.noise, alone.noise, atol=3e-4, rtol=0)
        torch.testing.assert_close(batched.null_embeddings, alone.null_embeddings, atol=1e-4, rtol=0)
        assert batched.psnr == pytest.approx(alone.psnr, abs=1e-4)
