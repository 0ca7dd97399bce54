"""How far a benchmark is: a bar on a terminal, lines where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0  # at least, where there is no terminal


class Progress:
    """Shows edits done, all edits, and what is being done; a continued benchmark does not begin at nothing."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.began = self.said = -float("inf")
        self.first = self.last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int, total: int, doing: str) -> None:
        """Shows it; what is being done goes to a terminal at once, to a file every few seconds."""
        if sys.stderr.isatty():
            self._show(done, total, doing)
        elif done != self.last or time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self._say(done, total, doing)
        self.last = done

    def _show(self, done: int, total: int, doing: str) -> None:
        if self.bar is None:
            # smoothing 0: edits come a batch at once, so the last moment's speed says nothing
            self.bar = tqdm(total=total, initial=done, unit="edit", desc="benchmark", smoothing=0)
        self.bar.total = total
        self.bar.set_postfix_str(doing, refresh=False)
        self.bar.update(done - self.bar.n)
        self.bar.refresh()

    def _say(self, done: int, total: int, doing: str) -> None:
        now = time.monotonic()
        if self.said < 0:
            self.began, self.first = now, done
        left = ""
        if done > self.first and done < total:
            seconds = (now - self.began) / (done - self.first) * (total - done)
            left = (
                f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
            )
        print(f"benchmark: {done} of {total} edits{left}: {doing}", file=sys.stderr, flush=True)
        self.said = now
