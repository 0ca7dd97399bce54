"""Many devices and nodes, each with its own pictures: ranks share a run folder and nothing else.

Plain DDP would average the gradients of different pictures, which is silently wrong. Here there is no wrapper, no
process group and no collective: a rank knows its number, takes its share of the pictures (``rows[rank::ranks]``),
and keeps its own checkpoint and its own writer. It waits for nobody, and nobody waits for it but the process that
started it, at the end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from nulltext.errors import UserError
from nulltext.runs.folder import RunFolder

RUN_VARIABLE = "NULLTEXT_RUN"
"""Tells a rank that was started here which run folder the first rank has claimed."""
MEETING_SECONDS = 300  # how long ranks that were started elsewhere wait for each other at the start
GRACE_SECONDS = 30.0  # how long ranks have to save what they are at when the run is stopped


def choose_strategy(wanted: Any, devices: Any, num_nodes: Any) -> Any:
    """The trainer's strategy: ``independent`` by itself where there may be more than one process.

    Args:
        wanted: What ``--trainer.strategy`` says.
        devices: What ``--trainer.devices`` says.
        num_nodes: What ``--trainer.num_nodes`` says.

    Raises:
        UserError: A strategy that would mix the gradients of different pictures.
    """
    if wanted not in ("auto", None, "independent"):
        raise UserError(
            f"--trainer.strategy {wanted} would mix the gradients of different pictures; leave it out: every device "
            "then has its own pictures (independent)"
        )
    many = devices not in (1, "1") or num_nodes not in (1, "1") or _launched_elsewhere() > 1
    return "independent" if many or wanted == "independent" else wanted


def _launched_elsewhere() -> int:
    """How many processes torchrun or SLURM started beside this one, itself included."""
    if TorchElasticEnvironment.detect():
        return int(os.environ.get("WORLD_SIZE", 1))
    return int(os.environ.get("SLURM_NTASKS", 1)) if SLURMEnvironment.detect() else 1


class IndependentStrategy(DDPStrategy):
    """Ranks that know of each other and never speak: a shard, a checkpoint and a writer for each."""

    strategy_name = "independent"

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        if isinstance(self.cluster_environment, SLURMEnvironment):
            # on SIGUSR1 every rank would save to one file, in the middle of a timestep, and take it up for its own
            self.cluster_environment.auto_requeue = False
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        """Sets the ranks, and nothing else: there is no process group to join."""
        reset_seed()
        self.set_world_ranks()
        self._join_run()

    def configure_ddp(self) -> None:
        """Nothing: the module stays as it is, its gradients its own."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Every rank saves its own, not only the first."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """A rank decides for itself."""
        return decision

    def _join_run(self) -> None:
        """Makes all ranks write to the folder that the first rank claims."""
        assert self.lightning_module is not None
        logger = self.lightning_module.trainer.logger
        if RUN_VARIABLE in os.environ:
            _die_with_parent()
        if not isinstance(logger, RunFolder) or logger.claimed:
            return
        if RUN_VARIABLE in os.environ:
            logger.join(Path(os.environ[RUN_VARIABLE]))
        elif self.world_size > 1:
            logger.join(Path(self._agree(logger)))

    def _agree(self, logger: RunFolder) -> str:
        """The run that rank 0 claims, made known once over the launcher's own address.

        Raises:
            UserError: The ranks did not meet in time.
        """
        environment = self.cluster_environment
        assert environment is not None
        os.environ.setdefault("MASTER_ADDR", environment.main_address)
        os.environ.setdefault("MASTER_PORT", str(environment.main_port))
        where = f"env://?rank={self.global_rank}&world_size={self.world_size}"
        try:
            store, _, _ = next(
                torch.distributed.rendezvous(where, timeout=timedelta(seconds=MEETING_SECONDS))
            )
            if self.global_rank == 0:
                store.set("run", str(logger.claim()))
            run = store.get("run").decode()
            store.set(f"rank {self.global_rank} knows", "")
            if self.global_rank == 0:  # which may hold the store: nobody may be left behind
                store.wait([f"rank {rank} knows" for rank in range(self.world_size)])
        except (RuntimeError, ValueError, OSError) as error:  # torch's DistError is a RuntimeError
            raise UserError(
                f"rank {self.global_rank} of {self.world_size} did not meet the others at "
                f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}; see that all were started"
            ) from error
        return run


StrategyRegistry.register(
    IndependentStrategy.strategy_name, IndependentStrategy, "each device inverts its own pictures"
)


class Launcher(_SubprocessScriptLauncher):
    """Starts a process for each device, and at the end says which of them did not come through.

    Lightning's own kills every rank when one dies; here the others finish their pictures.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failed = False

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Starts the other ranks, does this one's share, and waits for the others.

        Raises:
            UserError: There are more or fewer processes than the trainer was told.
        """
        try:
            self.cluster_environment.validate_settings(self.num_processes, self.num_nodes)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"{error}; --trainer.devices times --trainer.num_nodes must be the processes started"
            ) from error
        if not self.cluster_environment.creates_processes_externally and self.num_processes > 1:
            self._claim(trainer)
            self._call_children_scripts()
        if self.num_processes > 1:
            _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            result = function(*args, **kwargs)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            self._wait()
        return result

    def kill(self, signum: Any) -> None:
        """Passes a signal on; a kill only to those that do not stop by themselves."""
        if signum != signal.SIGKILL:
            return super().kill(signum)
        self._stop()
        self._wait()

    def _claim(self, trainer: Trainer | None) -> None:
        """One node's ranks share a folder by a variable that they inherit; several nodes agree on one later."""
        logger = trainer.logger if trainer is not None else None
        if self.num_nodes == 1 and isinstance(logger, RunFolder):
            os.environ[RUN_VARIABLE] = str(logger.claim())

    def _call_children_scripts(self) -> None:
        """Starts the other ranks; the variables that tell them so do not stay in this process."""
        try:
            super()._call_children_scripts()
        finally:
            for name in (RUN_VARIABLE, "LOCAL_RANK", "WORLD_SIZE"):
                os.environ.pop(name, None)

    def _stop(self) -> None:
        """Asks the ranks to save what they are at and end, and ends those that do not."""
        for process in self.procs:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.procs:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait(self) -> None:
        """Waits for the ranks, passing SIGTERM on meanwhile, and names those that died."""
        with _passing_on(signal.SIGTERM, self.procs):
            codes = [process.wait() for process in self.procs]
        self.failed = any(codes)
        first = self.cluster_environment.node_rank() * self.num_processes
        for rank, (process, code) in enumerate(zip(self.procs, codes, strict=True), start=first + 1):
            if code not in (0, 1, 130, 143):
                print(
                    f"nulltext: rank {rank} of {self.num_processes * self.num_nodes} (process {process.pid}) "
                    f"{_how(code)}; its pictures are not all done: go on with --ckpt_path",
                    file=sys.stderr,
                )
        self.procs = []


def ranks_failed(trainer: Trainer) -> bool:
    """Whether a process that this one started ended otherwise than well."""
    return bool(getattr(trainer.strategy.launcher, "failed", False))


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@contextmanager
def _passing_on(signum: signal.Signals, processes: list[subprocess.Popen]) -> Iterator[None]:
    """Hands a signal to other processes instead of dying of it and leaving them behind."""

    def pass_on(*_: Any) -> None:
        for process in processes:
            process.send_signal(signum)

    try:
        before = signal.signal(signum, pass_on)
    except ValueError:  # not the main thread, where there is nothing to set
        yield
        return
    try:
        yield
    finally:
        signal.signal(signum, before)


def _die_with_parent() -> None:
    """Has Linux end this rank when the process that started it is killed, so that no rank works on unseen."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
