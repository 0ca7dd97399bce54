"""The one exception that a person is meant to read, and what a person reads of the others."""

import traceback


class UserError(Exception):
    """What is wrong and what to type instead, in one line.

    The command line prints it as ``nulltext: error: ...`` and exits with code 2; no traceback.
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def told_of(error: BaseException) -> str:
    """What a page tells a person of an error, in one line; of one that nobody foresaw, the terminal has the rest."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError) or "memory" in text.lower():
        return "The memory ran out. What was saved is there; try a smaller size or another device."
    traceback.print_exception(error)
    return f"That failed ({type(error).__name__}: {text[:200]}); the terminal says more."
