"""Where the page's work is done: one model, one device, one picture at a time."""

from __future__ import annotations

import shlex
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from nulltext.cli.edit import make, read
from nulltext.cli.fit import FitCLI, quieten
from nulltext.cli.options import pick
from nulltext.cli.words import find_value
from nulltext.editing.output import Pictures, write_edits
from nulltext.inversion.file import Inversion
from nulltext.models.loading import LoadingOptions, load_model
from nulltext.runs.folder import run_folder
from nulltext.training.module import NullTextInversion

COMMAND = ("python", "main.py", "edit")


class Options(FitCLI):
    """The options of ``fit``, checked."""

    def fit(self, *_: Any, **__: Any) -> None:
        """Nothing runs."""


class Desk:
    """The model of a page that was started with some options of ``fit``; its runs go to ``lightning_logs`` in root.

    Raises:
        UserError: An option makes no sense, or the model cannot be loaded.
    """

    def __init__(self, words: Sequence[str], root: Path) -> None:
        quieten()
        self.words, self.root = list(words), root
        fit = Options(self.words).config.fit
        self.method, self.size = str(fit.model.method), fit.data.size
        self.loading = pick(LoadingOptions, fit.model)
        device = find_value(words, "device") or fit.trainer.accelerator.replace("gpu", "auto")
        self.place = {"device": device, "precision": fit.trainer.precision}
        self.model = load_model(self.loading.pretrained, self.loading, **self.place)
        self.busy = threading.Lock()
        print(f"nulltext: the model {self.model.name} is loaded", flush=True)

    def words_for(self, method: str, **data: object) -> list[str]:
        """The options of ``fit`` for a picture; other methods take of the page's what is not its own method's."""
        words, held = self.words, dict[str, object]()
        if method != self.method:
            loading = {f"model.{name}": value for name, value in vars(self.loading).items()}
            words, held = [], {**loading, "model.method": method, "data.size": self.size, **self.place}
        held |= {f"data.{name}": value for name, value in data.items()}
        return [*words, *(f"--{name}={value}" for name, value in held.items() if value is not None)]

    def invert(self, words: Sequence[str], after_step: Callable[[int, int], bool]) -> tuple[Path, list[str]]:
        """Runs ``fit`` of one picture: the folder where it leaves the inversion, unless it was stopped; warnings.

        ``after_step`` is told after each step how many are done, of how many, and says whether to stop.
        """

        def watch(trainer: Trainer, module: NullTextInversion, outputs: Any, batch: Any, k: int) -> None:
            trainer.should_stop |= after_step(batch.step + 1, module.method.steps)

        given = ("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={self.root}")
        with self._noting() as notes:
            fit = FitCLI([*words, *given], self.model, [LambdaCallback(on_train_batch_end=watch)])
        return run_folder(fit.trainer) / fit.datamodule.sources[0].name, notes

    def edit(self, words: Sequence[str], *, write: bool = True) -> tuple[Path, dict[str, Tensor]]:
        """Makes one edit as ``python main.py edit`` does, from the same words: its PNG, where its words act.

        Without ``write`` only where the words act is wanted, and no file is made.
        """
        (job,), options = read(words)
        inversion = Inversion.load(job.path)
        with self._noting() as notes:
            started = time.perf_counter()
            self.model.notes.noted.clear()  # else an unknown word is told once only, to whoever comes first
            edited, original = make(job, inversion, self.model, options)
        settings = {
            "method": options.method or inversion.method,
            "seconds": round(time.perf_counter() - started, 2),
            "notes": notes,
            "command": shlex.join([*COMMAND, *words]),
        }
        path = write_edits(job, inversion, edited, Pictures(original), settings)[0][0] if write else job.path
        return path, edited.results[0].attention

    @contextmanager
    def _noting(self) -> Iterator[list[str]]:
        """Has the device to itself, and collects what the package warns of, a line each."""
        notes: list[str] = []
        with self.busy, warnings.catch_warnings(record=True) as caught:
            yield notes
            ours = [w for w in caught if issubclass(w.category, UserWarning)]
            told = [str(w.message) for w in ours if "lightning" not in w.filename]
            notes += dict.fromkeys(" ".join(text.split()) for text in told)
