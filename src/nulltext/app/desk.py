"""Where the page's work is done: one model, one device, one picture at a time."""

from __future__ import annotations

import logging
import queue
import shlex
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from nulltext.app.fitting import Fitted, Parsed
    from nulltext.models.base import DiffusionModel

COMMAND = ("python", "main.py", "edit")


@dataclass(frozen=True)
class Made:
    """An edit that was made and written."""

    path: Path  # of its PNG; its settings lie beside it as JSON
    attention: dict[str, Tensor]


class Desk:
    """The model that a page works with.

    Args:
        words: The options of ``fit`` that the page was started with.
        root: Where ``lightning_logs`` lies or is to lie.
    """

    def __init__(self, words: Sequence[str], root: Path) -> None:
        self.words, self.root = list(words), root
        self._loaded: Future[tuple[DiffusionModel, Parsed]] = Future()
        self._device = threading.Lock()

    def load(self) -> None:
        """Loads the model in the background; who needs it waits."""
        threading.Thread(target=self._load, daemon=True).start()

    def _load(self) -> None:
        try:
            from nulltext.app.fitting import Parsed
            from nulltext.models.loading import load_model

            for name in ("lightning.pytorch", "lightning.fabric"):
                logging.getLogger(name).setLevel(logging.WARNING)
            options = Parsed(self.words)
            loading = options.loading
            model = load_model(loading.pretrained, loading, options.device, precision=options.precision)
            self._loaded.set_result((model, options))
            print(f"nulltext: the model {model.name} is loaded", flush=True)
        except BaseException as error:  # whatever it is, the page says it
            self._loaded.set_exception(error)

    @property
    def model(self) -> DiffusionModel:
        """The model.

        Raises:
            UserError: It cannot be loaded.
        """
        return self._loaded.result()[0]

    @property
    def options(self) -> Parsed:
        """The options of ``fit``, checked."""
        return self._loaded.result()[1]

    def words_for(self, method: str) -> list[str]:
        """The options of ``fit`` for a method; other methods take of them what does not belong to their own."""
        if method == self.options.method_name:
            return list(self.words)
        plain = {f.name: f.default for f in fields(self.options.loading)}
        held = {name: getattr(self.options.loading, name) for name in plain}
        loading = [f"--model.{name}={value}" for name, value in held.items() if value != plain[name]]
        size = self.options.size
        return [
            *loading,
            f"--model.method={method}",
            *([] if size is None else [f"--data.size={size}"]),
            f"--precision={self.options.precision}",
            f"--device={self.model.device}",
        ]

    def invert(
        self, words: Sequence[str], stop: Callable[[], bool], notes: list[str]
    ) -> Generator[tuple[int, int], None, Fitted]:
        """Runs ``fit``: yields how many steps are done, of how many. Goes on where nobody listens any more.

        Args:
            words: The options of ``fit``.
            stop: Whether the person wants to stop.
            notes: Gets the warnings.
        """
        told: queue.Queue[Any] = queue.Queue()

        def work() -> None:
            from nulltext.app.fitting import Watched

            try:
                with self._device, noting(notes):
                    place = f"--trainer.default_root_dir={self.root}"
                    run = Watched([*words, place], self.model, lambda *step: told.put(step), stop)
                    told.put(run.fitted())
            except BaseException as error:
                told.put(error)

        threading.Thread(target=work, daemon=True).start()
        while isinstance(news := told.get(), tuple):
            yield news
        if isinstance(news, BaseException):
            raise news
        return news

    def edit(self, words: Sequence[str], *, write: bool = True) -> Made:
        """Makes one edit as ``python main.py edit`` does, from the same words, and writes it.

        Args:
            words: The options of ``edit``.
            write: Whether it is written; without, only the attention is wanted.
        """
        from nulltext.cli.edit import read, read_original
        from nulltext.editing import edit
        from nulltext.editing.output import Pictures, write_edits
        from nulltext.inversion.file import Inversion
        from nulltext.models.vocabulary import unknown_words

        (job,), options = read(words)
        inversion, model, notes = Inversion.load(job.path), self.model, list[str]()
        original = read_original(job.path.parent / "original.png", inversion.size)
        wanted = options.attention or ()
        with self._device, noting(notes):
            started = time.perf_counter()
            edited = edit(
                model, inversion, job.edits, method=options.method, original=original, attention=wanted
            )
        told = [note for note in notes if "does not know" not in note]  # it says so once in a process
        strange = [] if model.known_words is None else unknown_words(job.edits[0].prompt, model.known_words)
        told += [f"the model does not know {', '.join(map(repr, strange))}"] if strange else []
        settings = {
            "method": options.method or inversion.method,
            "seconds": round(time.perf_counter() - started, 2),
            "notes": told,
            "command": shlex.join([*COMMAND, *words]),
        }
        path = write_edits(job, inversion, edited, Pictures(original), settings)[0][0] if write else job.path
        return Made(path, edited.results[0].attention)


@contextmanager
def noting(notes: list[str]) -> Iterator[None]:
    """Collects what the package warns of, a line each."""
    from nulltext.cli.fit import NOISE

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            ours = [
                w for w in caught if issubclass(w.category, UserWarning) and "lightning" not in w.filename
            ]
            notes += dict.fromkeys(" ".join(str(w.message).split()) for w in ours)
