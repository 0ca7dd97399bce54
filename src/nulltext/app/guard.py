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

from PIL.Image import Image

from nulltext.errors import UserError

Changes: TypeAlias = dict[str, Any]
"""What an action changes: parts of the page by name, each with its new value, or a dict of its properties."""


@dataclass
class Sheet:
    """What one person has on the desk; nobody else sees it."""

    picture: Path | None = None  # the file to invert
    small: Image | None = None  # a small copy of it, upright
    size: tuple[int, int] = (1, 1)  # (width, height) of it, upright
    folder: Path | None = None  # of the open inversion
    again: list[str] = field(default_factory=list)  # the words that go on with a stopped run
    stop: bool = False
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
    update: Callable[..., Any],
) -> Callable[..., Any]:
    """An action as gradio calls it. It goes on to its end where the page is closed meanwhile.

    Args:
        find: Gives the action. It takes the values of the inputs by name, the ``index`` where something was picked, and
            ``show``, which changes the page before the end.
        inputs: The parts of the page whose values it gets.
        ui: All parts of the page.
        update: Gradio's function of that name.
    """

    def run(given: Mapping[Any, Any], event: Any = None) -> Iterator[dict[Any, Any]]:
        told: queue.Queue[Changes] = queue.Queue()

        def show(**changes: Any) -> None:
            told.put(changes)

        def work() -> None:
            values = {name: given[part] for name, part in inputs.items()}
            try:
                show(**find()(SimpleNamespace(**values, index=getattr(event, "index", None), show=show)))
            except BaseException as error:
                show(status=say(line(error), bad=True))
            show()

        threading.Thread(target=work, daemon=True).start()
        while changes := told.get():
            yield {
                getattr(ui, name): update(**value) if isinstance(value, dict) else value
                for name, value in changes.items()
            }

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
