"""What a person types. Light to import: help and version answer at once, a verb imports what it needs."""

from __future__ import annotations

import difflib
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence

from nulltext import __version__, imports
from nulltext.cli.words import CONFIG, find_configs, find_value, in_utf8, tidy
from nulltext.errors import UserError

HELP = """\
usage: python main.py [-h] [--version] {fit,edit,test,app,check} ...

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
  app    a page to invert and edit in:
           python main.py app
  check  prove that a model works here, with a report:
           python main.py check --model.pretrained farmyard

options:
  -h, --help     this text; after a verb, the verb's own options
  --version      the version
  --config NAME  settings in YAML, looked for here, then in configs/, with or without .yaml

Watch a run with: tensorboard --logdir lightning_logs
"""

VERBS = ("fit", "edit", "test", "app", "check")
"""The modules beside this one; the ``main`` of each takes the words after the verb and returns the exit code."""
QUIET = {"-h", "--help", "--print_config"}
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line, the words after the program's name; ``sys.argv[1:]`` by default.

    Returns:
        The exit code: 0 done; 1 done, but some pictures could not be used; 2 the user's mistake, explained in one
        line; 130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    if args is None:
        imports.one_command = True
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
        place = error.filename or "the disk"
        return _print_error(f"{place}: {error.strerror}; free the disk or write elsewhere")
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # --help and --print_config end so
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        if args is None:
            gc.freeze()  # else Python looks at every object once more before it ends


def _print_error(message: str) -> int:
    sys.stdout.flush()
    print(f"nulltext: error: {printable(message)}", file=sys.stderr)
    return 2


def printable(text: str) -> str:
    """A text in one line, without what commands a terminal; joined emoji stay whole."""
    return "".join(c if c.isprintable() or c == "\u200d" else "?" for c in " ".join(text.split()))


def _run(words: list[str]) -> int:
    configs: list[str] = []
    known = f"{', '.join(VERBS[:-1])} and {VERBS[-1]}"
    while words and words[0].startswith("-"):
        first = words.pop(0)
        if first in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if first in ("-V", "--version"):
            print(f"nulltext {__version__}")
            return 0
        if first in CONFIG and words:
            configs += [first, words.pop(0)]
        elif first.startswith("--config="):
            configs.append(first)
        else:
            raise UserError(f"{first} belongs after a verb: {known}; see python main.py --help")
    if not words:
        print(HELP, end="", file=sys.stderr)
        return 2
    verb = words[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; see python main.py --help"
        raise UserError(f"no verb {verb!r}, only {known}{hint}")
    rest = find_configs([*configs, *words[1:]])
    edits = verb == "edit"
    named = find_value(rest, "inversion" if edits else "model.pretrained") or (None if edits else "farmyard")
    silent = os.environ.get("LOCAL_RANK", "0") != "0" or QUIET & {word.partition("=")[0] for word in rest}
    what = "inversion" if edits else "model"
    if named and not silent:  # before the libraries are imported, which takes seconds
        print(f"nulltext: loading the {what} {printable(str(named))}", flush=True)
    if verb == "fit" and {"-h", "--help"} & set(rest):
        from nulltext.cli.fit_options import help_text

        print(help_text(rest), end="")
        return 0
    with imports.no_collection():
        module = importlib.import_module(f"nulltext.cli.{verb}")
    return module.main(rest)
