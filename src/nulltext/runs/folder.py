"""The folder of a run: claimed by one run alone, found again by the next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from nulltext.errors import UserError
from nulltext.files import lock_folder

LOGS = "lightning_logs"
LAST = "checkpoints/last.ckpt"


class RunFolder(Logger):
    """Tells Lightning which folder is the run's, and makes none before there is something to put in it.

    Lightning's own TensorBoardLogger makes the folder and an empty file of events before the pictures are looked at.

    Args:
        root: Where ``lightning_logs`` lies or is to lie.
        folder: The run to go on with; by default a new ``version_N``.
    """

    def __init__(self, root: Path, folder: Path | None = None) -> None:
        super().__init__()
        self._logs = root / LOGS
        self._folder = folder
        self.claimed = folder is not None
        self._held: int | None = None

    @property
    def name(self) -> str:
        """The name that Lightning asks for."""
        return self.folder.parent.name

    @property
    def version(self) -> str:
        """Such as ``version_0``."""
        return self.folder.name

    @property
    def save_dir(self) -> str:
        """What ``trainer.log_dir`` gives."""
        return str(self.folder)

    @property
    def folder(self) -> Path:
        """The run's folder; it may not exist yet."""
        if self._folder is None:
            numbers = [p.name.removeprefix("version_") for p in self._logs.glob("version_*")]
            taken = [int(number) for number in numbers if number.isdecimal()]
            self._folder = self._logs / f"version_{max(taken, default=-1) + 1}"
        return self._folder

    def claim(self) -> Path:
        """Makes the folder and holds it; where another run took the number meanwhile, takes the next.

        Raises:
            UserError: It cannot be made, or a run that goes on there is at work.
        """
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            while not self.claimed:
                try:
                    self.folder.mkdir()
                    self.claimed = True
                except FileExistsError:
                    self._folder = None
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the run folder {self.folder}: {error.strerror}; "
                "give a folder to write to with --trainer.default_root_dir"
            ) from error
        self._hold()
        return self.folder

    def join(self, folder: Path) -> None:
        """Writes to the folder that another process of the same run has claimed."""
        self._folder, self.claimed = folder, True

    def _hold(self) -> None:
        """Keeps other runs out for as long as this process lives; a killed one holds nothing."""
        if self._held is not None:
            return
        try:
            self._held = lock_folder(self.folder, wait=False)
        except BlockingIOError:
            raise UserError(
                f"another process is at work in {self.folder}; wait for it, or leave --ckpt_path out"
            ) from None

    def finalize(self, status: str) -> None:
        """Lets go of the folder; Lightning calls this at the end of a run, however it ends."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Nothing: the curves are those of ``training.curves``."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""


def run_folder(trainer: Trainer) -> Path:
    """Where the run leaves its files."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, or None where it was moved elsewhere."""
    run = checkpoint.resolve().parents[1]
    return run if run / LAST == checkpoint.resolve() and (run / "config.yaml").is_file() else None


def find_checkpoint(name: str, root: Path) -> Path:
    """The checkpoint's path; a run stands for its own, ``last`` for that of the run which was written last.

    Raises:
        UserError: There is none.
    """
    path = Path(name)
    if name == "last":
        runs = sorted(root.glob(f"{LOGS}/*/{LAST}"), key=lambda found: found.stat().st_mtime)
        if not runs:
            raise UserError(f"no run to resume in {root / LOGS}; leave --ckpt_path out to start one")
        return runs[-1]
    path = path / LAST if (path / LAST).is_file() else path
    if not path.is_file():
        raise UserError(f"no checkpoint {name}; runs leave theirs in {LOGS}/version_N/{LAST}, or say last")
    return path
