"""How far a benchmark is: a bar on a terminal, lines where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
import time
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0  # at least, where there is no terminal


class Progress:
    """Shows edits done, all edits, and what is being done; a continued benchmark does not begin at nothing."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.began = (0.0, 0)  # when, and the edits that were done then
        self.said = (-float("inf"), -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int, total: int, doing: str) -> None:
        """Shows it: to a terminal at once, to a file where an edit is done, and every few seconds."""
        now = time.monotonic()
        if total and not self.began[0]:
            self.began = (now, done)
        if sys.stderr.isatty() and total:
            # smoothing 0: edits come a batch at once, so the last moment's speed says nothing
            self.bar = self.bar or tqdm(total=total, initial=done, unit="edit", desc="benchmark", smoothing=0)
            self.bar.set_postfix_str(doing, refresh=False)
            self.bar.update(done - self.bar.n)
            self.bar.refresh()
        elif done != self.said[1] or now - self.said[0] >= SECONDS_BETWEEN_LINES:
            shown = f"{done} of {total} edits{self._left(now, done, total)}, " if total else ""
            print(f"benchmark: {shown}{doing}", file=sys.stderr, flush=True)
            self.said = (now, done)

    def _left(self, now: float, done: int, total: int) -> str:
        """About how long the rest takes."""
        began, first = self.began
        if not first < done < total:
            return ""
        seconds = (now - began) / (done - first) * (total - done)
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"
