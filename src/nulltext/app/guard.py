"""Between the page and its actions: parts by name, and every mistake a line on the page."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from nulltext.app.inverting import say
from nulltext.errors import UserError


def guard(
    action: Callable[..., Any], inputs: Mapping[str, Any], ui: SimpleNamespace, picked: Any
) -> Callable[..., Any]:
    """An action as gradio calls it.

    Args:
        action: Takes the values of the inputs by name, and ``index`` where something was picked; gives, or yields,
            what changes by name.
        inputs: The parts of the page whose values it gets.
        ui: All parts of the page.
        picked: Gradio's type of the event, where the person picks one of several pictures.
    """

    def run(given: Mapping[Any, Any], event: Any = None) -> Iterator[dict[Any, Any]]:
        values = {name: given[part] for name, part in inputs.items()}
        try:
            changes = action(SimpleNamespace(**values, index=getattr(event, "index", None)))
            for change in changes if inspect.isgenerator(changes) else [changes]:
                yield {getattr(ui, name): value for name, value in change.items()}
        except Exception as error:
            yield {ui.status: say(line(error), bad=True)}

    run.__annotations__ = {"event": picked} if picked else {}
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
