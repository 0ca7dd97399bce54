"""How far a benchmark is: a bar on a terminal, lines where the output goes to a file or a pipe."""

import sys
import time
from contextlib import AbstractContextManager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0  # at least, where there is no terminal


class Progress(AbstractContextManager["Progress"]):
    """Shows edits done, all edits, and what is being done; a continued benchmark does not begin at nothing."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.began = (0.0, 0)  # when, and the edits that were done then
        self.said = (-float("inf"), -1)

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
            began, first = self.began
            left = ""
            if first < done < total:
                seconds = (now - began) / (done - first) * (total - done)
                amount, unit = (seconds / 60, "min") if seconds >= 90 else (seconds, "s")
                left = f", about {amount:.0f} {unit} left"
            shown = f"{done} of {total} edits{left}, " if total else ""
            print(f"benchmark: {shown}{doing}", file=sys.stderr, flush=True)
            self.said = (now, done)
