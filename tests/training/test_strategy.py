"""Which strategy is chosen, which checkpoint a rank goes on from, and that ranks never speak."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.utilities.rank_zero import rank_zero_only as utils_rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from nulltext.errors import UserError
from nulltext.inversion.file import Inversion
from nulltext.runs.checkpoints import choose_checkpoint, rank_checkpoint
from nulltext.runs.finished import DECIDING, finished_names
from nulltext.training.datamodule import PictureData
from nulltext.training.strategy import IndependentStrategy, Launcher, choose_strategy


@pytest.mark.parametrize(
    ("devices", "nodes", "variables", "chosen"),
    [
        (1, 1, {}, "auto"),
        ("1", "1", {}, "auto"),
        (2, 1, {}, "independent"),
        ("auto", 1, {}, "independent"),
        ([0, 1], 1, {}, "independent"),
        (1, 2, {}, "independent"),
        (1, 1, {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "independent"),
        (1, 1, {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1"}, "auto"),
        (1, 1, {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "invert", "SLURM_STEP_ID": "0"}, "independent"),
    ],
)
def test_more_than_one_process_is_independent_by_itself(
    devices: Any, nodes: Any, variables: dict[str, str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_STEP_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_strategy("auto", devices, nodes) == chosen


def test_a_strategy_that_averages_is_refused() -> None:
    with pytest.raises(UserError, match="mix the gradients"):
        choose_strategy("ddp", 2, 1)


def test_each_rank_knows_its_number_and_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(
        rank_zero_only, "rank", 0
    )  # Lightning's record of who this process is: put back afterwards
    monkeypatch.setattr(utils_rank_zero_only, "rank", 0)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="independent", logger=False, enable_progress_bar=False
    )
    strategy = trainer.strategy
    assert isinstance(strategy, IndependentStrategy)
    assert (trainer.global_rank, trainer.world_size) == (1, 2) and not trainer.is_global_zero
    strategy.barrier()
    assert strategy.broadcast("mine") == "mine"
    assert strategy.reduce(torch.tensor(3.0)) == 3 and strategy.reduce_boolean_decision(True)
    assert not torch.distributed.is_initialized()


def by_torchrun(rank: int) -> dict[str, str]:
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank % 2,
        "GROUP_RANK": rank // 2,
        "WORLD_SIZE": 4,
        "LOCAL_WORLD_SIZE": 2,
    }
    return {"TORCHELASTIC_RUN_ID": "x", **{name: str(number) for name, number in numbers.items()}}


def by_slurm(rank: int) -> dict[str, str]:
    numbers = {"PROCID": rank, "LOCALID": rank % 2, "NODEID": rank // 2, "NTASKS": 4, "NTASKS_PER_NODE": 2}
    numbers |= {"NNODES": 2, "JOB_ID": 12345}
    return {"SLURM_JOB_NAME": "invert", **{f"SLURM_{name}": str(number) for name, number in numbers.items()}}


@pytest.mark.parametrize("launched", [by_torchrun, by_slurm])
def test_a_rank_learns_its_number_from_what_launched_it_and_takes_its_share(
    launched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(7):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    monkeypatch.setattr(utils_rank_zero_only, "rank", 0)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started a process of its own"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else the launcher chooses a number, for good
    for name in {*by_torchrun(0), *by_slurm(0)}:
        monkeypatch.delenv(name, raising=False)
    shares = []
    for rank in range(4):
        with monkeypatch.context() as environment:
            for name, value in launched(rank).items():
                environment.setenv(name, value)
            strategy = choose_strategy("auto", 2, 2)
            trainer = Trainer(
                accelerator="cpu",
                devices=2,
                num_nodes=2,
                strategy=strategy,
                logger=False,
                enable_progress_bar=False,
            )
            assert (trainer.global_rank, trainer.world_size, trainer.node_rank) == (rank, 4, rank // 2)
            assert not getattr(trainer.strategy.cluster_environment, "auto_requeue", False)
            assert trainer.strategy.launcher.launch(lambda: "its share", trainer=trainer) == "its share"
            data = PictureData(image=[tmp_path], prompt="a picture")
            data.trainer = trainer
            data.setup("fit")
            assert data.order == list("0123456") and data.broken == []
            shares.append([source.name for source in data.sources])
    assert shares == [["0", "4"], ["1", "5"], ["2", "6"], ["3"]]


@pytest.mark.parametrize("launched", [by_torchrun, by_slurm])
def test_other_numbers_than_the_launchers_are_refused(launched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*by_torchrun(0), *by_slurm(0)}:
        monkeypatch.delenv(name, raising=False)
    for name, value in launched(0).items():
        monkeypatch.setenv(name, value)
    environment = {by_torchrun: TorchElasticEnvironment, by_slurm: SLURMEnvironment}[launched]()
    with pytest.raises(UserError, match="must be the processes started"):
        Launcher(environment, 3, 2).launch(lambda: pytest.fail("ran all the same"))


def test_the_dead_are_named_and_the_living_are_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher(LightningEnvironment(), 5, 1)
    for code in (
        "",
        "import sys; sys.exit(1)",
        "import os; os.kill(os.getpid(), 9)",
        "import sys; sys.exit(7)",
    ):
        launcher.procs.append(subprocess.Popen([sys.executable, "-c", code]))
    launcher._wait()
    said = capfd.readouterr().err.splitlines()
    assert launcher.failed and len(said) == 2
    assert "rank 3 of 5" in said[0] and "SIGKILL" in said[0] and "--ckpt_path" in said[0]
    assert "rank 4 of 5" in said[1] and "exit code 7" in said[1]


def test_an_interrupted_launcher_leaves_nobody_behind() -> None:
    launcher = Launcher(LightningEnvironment(), 2, 1)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher.procs.append(sleeper)
    launcher.kill(9)
    assert sleeper.poll() == -15


def checkpoint(path: Path, *pictures: str) -> Path:
    facts = {
        "pictures": [{"name": name, "sha256": name * 8, "prompt": ""} for name in pictures],
        "model": "",
        "fingerprint": "",
        "settings": {},
        "memory": {},
        "cost": {},
    }
    path.parent.mkdir(exist_ok=True)
    torch.save({"nulltext": facts, "state_dict": {}, "loops": {}}, path)
    return path


def test_a_rank_goes_on_from_a_checkpoint_of_its_own_pictures_whoever_made_it(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / rank_checkpoint(0), "a")
    second = checkpoint(tmp_path / rank_checkpoint(1), "b")
    (tmp_path / rank_checkpoint(2)).write_bytes(b"damaged")

    def chosen(rank: int, *names: str) -> Path | None:
        return choose_checkpoint(first, rank, [(name, name * 8) for name in names])

    assert chosen(0, "a", "c") == first and chosen(1, "b") == second
    assert chosen(0, "b", "c") == second  # another number of ranks than before
    assert chosen(2, "c") is None and chosen(1) is None


def facts(sha256: str, **others: Any) -> dict[str, Any]:
    known = {
        "source_sha256": sha256,
        "prompt": "a sheep",
        "size": [8, 8],
        "crop": "center",
        "fingerprint": "f",
    }
    return {**known, "timesteps": [1], "settings": {"steps": 1}, **others}


def made(folder: Path, name: str, sha256: str) -> None:
    said = facts(sha256)
    Inversion(
        null_embeddings=torch.zeros(1, 2, 2),
        noise=torch.zeros(4, 2, 2),
        guidance_scale=1.0,
        model="m",
        scheduler={},
        **{**said, "size": (8, 8)},
    ).save(folder / name / "inversion.safetensors")


def test_finished_is_by_content_and_settings(tmp_path: Path) -> None:
    made(tmp_path, "a", "1")
    made(tmp_path, "b", "2")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "inversion.safetensors").write_bytes(b"damaged")
    assert finished_names(tmp_path, {"a": facts("1"), "b": facts("2"), "c": facts("3")}) == (
        {"a", "b"},
        set(),
    )
    assert finished_names(tmp_path, {"renamed": facts("1"), "a": facts("9")}) == ({"renamed"}, {"a"})
    assert finished_names(tmp_path, {"twin": facts("1"), "a": facts("1")}) == ({"a"}, set())
    assert finished_names(tmp_path / "nothing", {"a": facts("1")}) == (set(), set())
    for name, other in zip(
        DECIDING[1:], ["a cow", [8, 4], "none", "g", [2], {"steps": 2}, "ddim"], strict=True
    ):
        assert finished_names(tmp_path, {"a": facts("1", **{name: other})}) == (set(), set()), name
