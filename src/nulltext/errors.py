"""The one exception that a person is meant to read."""


class UserError(Exception):
    """What is wrong and what to type instead, in one line.

    The command line prints it as ``nulltext: error: ...`` and exits with code 2; no traceback.
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
