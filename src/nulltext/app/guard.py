"""Between the page and its actions: parts by name, and every mistake a line on the page."""

from __future__ import annotations

import html
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

from nulltext.errors import UserError

Changes: TypeAlias = dict[str, Any]
"""What an action changes: parts of the page by name, each with its new value, or a dict of its properties."""


@dataclass
class Sheet:
    """What one person has on the desk; nobody else sees it."""

    folder: Path | None = None  # of the open inversion
    again: list[str] = field(default_factory=list)  # the words that go on with a stopped run
    stop: bool = False
    mask: Path | None = None  # of the edit that was taken up, until the brush is used
    results: list[Path] = field(default_factory=list)  # the variants of the last edit
    current: Path | None = None  # the one that is shown
    attention: dict[str, Any] = field(default_factory=dict)  # of its words, once looked at


def say(text: str, done: float | None = None, *, bad: bool = False) -> str:
    """The line at the foot of the page, with a bar where something is under way."""
    bar = "" if done is None else f'<progress value="{done:.3f}" aria-label="Done so far"></progress>'
    return f'<p role="status" class="{"bad" if bad else "good"}">{bar}{html.escape(text)}</p>'


def guard(
    find: Callable[[], Callable[[Any], Changes]],
    inputs: Mapping[str, Any],
    ui: SimpleNamespace,
    update: Callable[[Any, Any], Any],
) -> Callable[..., Any]:
    """An action as gradio calls it. It goes on to its end where the page is closed meanwhile.

    Args:
        find: Gives the action. It takes the values of the inputs by name, the ``index`` where something was picked, and
            ``show``, which changes the page before the end.
        inputs: The parts of the page whose values it gets.
        ui: All parts of the page.
        update: What gradio is told of a part and its change.
    """

    def run(given: Mapping[Any, Any], event: Any = None) -> Iterator[dict[Any, Any]]:
        told: queue.Queue[Changes] = queue.Queue()
        g = SimpleNamespace(**{name: given[part] for name, part in inputs.items()})
        g.index, g.show = getattr(event, "index", None), lambda **changes: told.put(changes)

        def work() -> None:
            try:
                g.show(**find()(g))
            except BaseException as error:
                g.show(status=say(line(error), bad=True))
            g.show()

        threading.Thread(target=work, daemon=True).start()
        while changes := told.get():
            parts = {getattr(ui, name): change for name, change in changes.items()}
            yield {part: update(part, change) for part, change in parts.items()}

    return run


def line(error: BaseException) -> str:
    """What a person reads of an error; of one that nobody foresaw, the terminal has the rest."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or "memory" in text.lower():
        return "The memory ran out. What was saved is there; try a smaller size or another device."
    traceback.print_exception(error, file=sys.stderr)
    return f"That failed ({type(error).__name__}: {text[:200]}); the terminal says more."
