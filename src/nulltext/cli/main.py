"""What a person types. Light to import: help and version answer at once, a verb imports what it needs."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nulltext import __version__
from nulltext.cli.configs import find_configs
from nulltext.cli.words import find_value, in_utf8, tidy
from nulltext.errors import UserError

HELP = """\
usage: python main.py [-h] [--version] {fit,edit,test} ...

Null-text inversion (Mokady et al., CVPR 2023): makes a photograph reproducible by a diffusion model, then edits it
with words.

  fit    invert a picture, or many:
           python main.py fit --config nulltext.yaml --data.image sheep.jpg
         resume a run that was stopped:
           python main.py fit --config nulltext.yaml --data.image sheep.jpg --ckpt_path last
  edit   change an inverted picture with words:
           python main.py edit --inversion lightning_logs/version_0 --prompt "a photo of a brown horse"
  test   compare methods on a benchmark:
           python main.py test --config benchmark.yaml

options:
  -h, --help     this text; after a verb, the verb's own options
  --version      the version
  --config NAME  settings in YAML, looked for here, then in configs/, with or without .yaml

Watch a run with: tensorboard --logdir lightning_logs
"""

VERBS = {"fit": "nulltext.cli.fit", "edit": "nulltext.cli.edit", "test": "nulltext.cli.test"}
"""The module of each verb; its ``main`` takes the words after the verb and returns the exit code."""
LOADS = {
    "fit": ("model.pretrained", "model", "farmyard"),
    "edit": ("inversion", "inversion", ""),
    "test": ("model.pretrained", "model", "farmyard"),
}
"""What the first line of a verb names: the option, what it is, its default."""
QUIET = ("-h", "--help", "--print_config")

SIGNAL_EXIT = 128
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        args: The words after the program's name; ``sys.argv[1:]`` by default.

    Returns:
        The exit code: 0 done; 1 done, but some pictures could not be used; 2 the user's mistake, explained in one
        line; 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    if args is None:
        in_utf8(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name that is no UTF-8 must not end the run that prints it
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else it advises to install torchvision
    if os.getcwd() not in sys.path:  # last: a file here must not shadow a library
        sys.path.append(os.getcwd())
    try:
        return _run(tidy(sys.argv[1:] if args is None else args))
    except UserError as error:
        return _print_error(str(error))
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        return _print_error(
            f"{error.filename or 'the disk'}: {error.strerror}; free the disk or write elsewhere"
        )
    except KeyboardInterrupt:
        return SIGNAL_EXIT + 2
    except SystemExit as stop:  # --help and --print_config end so
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _print_error(message: str) -> int:
    sys.stdout.flush()
    print(f"nulltext: error: {printable(message)}", file=sys.stderr)
    return 2


def printable(text: str) -> str:
    """A text in one line, without what commands a terminal; joined emoji stay whole."""
    return "".join(c if c.isprintable() or c == "\u200d" else "?" for c in " ".join(text.split()))


def _run(words: list[str]) -> int:
    configs: list[str] = []
    while words and words[0].startswith("-"):
        if words[0] in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if words[0] in ("-V", "--version"):
            print(f"nulltext {__version__}")
            return 0
        taken = _take_config(words)
        if not taken:
            raise UserError(f"{words[0]} belongs after a verb: fit, edit or test; see python main.py --help")
        configs += taken
    if not words:
        print(HELP, end="", file=sys.stderr)
        return 2
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see python main.py --help"
        raise UserError(f"no verb {verb!r}, only fit, edit and test{hint}")
    rest = find_configs([*configs, *rest])
    if not set(QUIET) & {word.partition("=")[0] for word in rest}:
        _announce(verb, rest)
    return importlib.import_module(VERBS[verb]).main(rest)


def _announce(verb: str, words: list[str]) -> None:
    """The first line, before the libraries are imported, which takes seconds."""
    key, what, default = LOADS[verb]
    named = str(find_value(words, key) or default)
    if named and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"nulltext: loading the {what} {printable(named)}", flush=True)


def _take_config(words: list[str]) -> list[str]:
    """Takes ``--config NAME`` from the front of the words, in either spelling."""
    if words[0] in ("--config", "-c") and len(words) > 1:
        taken = words[:2]
        del words[:2]
        return taken
    return [words.pop(0)] if words[0].startswith("--config=") else []
