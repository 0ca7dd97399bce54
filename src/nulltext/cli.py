"""What a person types. Light to import: help and version answer at once, a verb imports what it needs.

The verbs live in ``nulltext.fit``, which is Lightning's command line, ``nulltext.editing_command`` and
``nulltext.evaluation_command``.
"""

import difflib
import errno
import importlib
import io
import os
import sys
from pathlib import Path

from nulltext import __version__
from nulltext.errors import UserError

HELP = """\
usage: python main.py [-h] [--version] {fit,edit,test} ...

Null-text inversion (Mokady et al., CVPR 2023): makes a photograph reproducible by a diffusion model, then edits it
with words.

  fit    invert a picture, or many:
           python main.py fit --config nulltext.yaml --data.image sheep.jpg
         take up a run that was stopped:
           python main.py fit --config nulltext.yaml --data.image sheep.jpg --ckpt_path last
  edit   change an inverted picture with words:
           python main.py edit --inversion lightning_logs/version_0 --prompt "a photo of a brown horse"
  test   score methods side by side on a benchmark:
           python main.py test --config benchmark.yaml

options:
  -h, --help     this text; after a verb, the verb's own options
  --version      the version
  --config NAME  settings in YAML, looked for here, then in configs/, with or without .yaml

Watch a run with: tensorboard --logdir lightning_logs
"""

VERBS = {"fit": "nulltext.fit", "edit": "nulltext.editing_command", "test": "nulltext.evaluation_command"}
"""The module of each verb; its ``main`` takes the words after the verb and gives the exit code."""

SIGNAL_EXIT = 128
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(args: list[str] | None = None) -> int:
    """Runs a command line.

    Args:
        args: The words after the program's name; ``sys.argv[1:]`` by default.

    Returns:
        The exit code: 0 done; 1 done, but some pictures could not be used; 2 the user's mistake, said in one line;
        130 and 143 stopped by Ctrl-C and SIGTERM.
    """
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name that is no UTF-8 must not end the run that prints it
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else it advises to install torchvision
    try:
        return _run(words)
    except UserError as error:
        return _say(str(error))
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        return _say(f"{error.filename or 'the disk'}: {error.strerror}; free the disk or write elsewhere")
    except KeyboardInterrupt:
        return SIGNAL_EXIT + 2
    except SystemExit as stop:  # --help and --print_config end so
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _say(message: str) -> int:
    sys.stdout.flush()
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))  # no terminal's commands
    print(f"nulltext: error: {line}", file=sys.stderr)
    return 2


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
            raise UserError(
                f"{words[0]} must stand after a verb: fit, edit or test; see python main.py --help"
            )
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
    return importlib.import_module(VERBS[verb]).main(rest)


def _take_config(words: list[str]) -> list[str]:
    """Takes ``--config NAME`` from the front of the words, in either spelling."""
    if words[0] in ("--config", "-c") and len(words) > 1:
        taken = words[:2]
        del words[:2]
        return taken
    return [words.pop(0)] if words[0].startswith("--config=") else []


def find_configs(words: list[str]) -> list[str]:
    """The words with each ``--config NAME`` replaced by the path of that file.

    Raises:
        UserError: There is no such config; those there are are named.
    """
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("--config", "-c"):
            name = next(rest, None)
            if name is None:
                raise UserError("--config needs a name, such as nulltext.yaml")
            found += ["--config", str(find_config(name))]
        elif word.startswith("--config="):
            found += ["--config", str(find_config(word.removeprefix("--config=")))]
        else:
            found.append(word)
    return found


def find_config(name: str) -> Path:
    """A config by name: as it is, then in configs/ here, then in those that come with the program.

    Raises:
        UserError: There is no such file, or it is no config.
    """
    from nulltext.configs import check_config

    folders = (Path(), Path("configs"), *shipped_configs())
    candidates = [folder / (name + ending) for folder in folders for ending in ("", ".yaml", ".yml")]
    for path in candidates:
        if path.is_file():
            check_config(path)
            return path
    names = sorted({path.name for folder in folders[1:] for path in folder.glob("*.yaml")})
    raise UserError(f"no config {name} here or in configs/; there are {', '.join(names) or 'none'}")


def shipped_configs() -> list[Path]:
    """configs/ beside the package: of the checkout, or of the installed wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    inside = [checkout / "configs"] if (checkout / "pyproject.toml").is_file() else []
    return [*inside, package / "configs"]
