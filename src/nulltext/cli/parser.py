"""A parser whose errors are one line that says what to type, and whose help shows our own options first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from nulltext.errors import UserError

Options = TypeVar("Options")
TRAINER_NOTE = (
    "Lightning's Trainer: --trainer.precision 32-true, bf16-mixed or 16-mixed; --trainer.accelerator gpu;\n"
    "--trainer.default_root_dir FOLDER; and all its others, which --print_config shows."
)


class OneLineParser(ArgumentParser):
    """Raises a mistake as a ``UserError`` instead of printing the usage, and hides the Trainer's options in the help.

    They stay in ``--print_config``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["formatter_class"] = partial(WideFormatter, width=120, max_help_position=34)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Says the mistake in one line.

        Raises:
            UserError: Always.
        """
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for parser in getattr(self._subcommands_action, "choices", None) or {}:
            known += self._subcommands_action.choices[parser]._option_string_actions  # type: ignore[union-attr]
        raise UserError(explain(message, known)) from ex

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Paths with the home folder's in place of ``~``, from words and configs alike."""
        return _with_home(super().parse_args(*args, **kwargs))

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:
        """The same of a mapping."""
        return _with_home(super().parse_object(*args, **kwargs))

    def format_help(self, *args: Any) -> str:
        """Our options; the Trainer's in one line."""
        with self._ours_only() as hidden:
            return super().format_help(*args) + (f"\n{TRAINER_NOTE}\n" if hidden else "")

    @contextmanager
    def _ours_only(self) -> Iterator[bool]:
        groups, usage = self._action_groups, self.usage
        shown = [group for group in groups if not _is_trainers(group)]
        self._action_groups = shown
        self.usage = f"python {self.prog.replace(' [options]', '')} [--config NAME] [--OPTION VALUE] ..."
        try:
            yield len(shown) < len(groups)
        finally:
            self._action_groups, self.usage = groups, usage


def _with_home(config: Namespace) -> Namespace:
    for key, value in config.items():
        if isinstance(value, Path):
            config[key] = value.expanduser()
    return config


class WideFormatter(DefaultHelpFormatter):
    """Leaves out the options that read a whole group from a file, and long lists of classes that would do as well."""

    def add_argument(self, action: Any) -> None:
        """Adds an option unless it reads a group from a file: ``--config`` does that for all."""
        if type(action).__name__ != "_ActionConfigLoad":
            super().add_argument(action)

    def _get_help_string(self, action: Any) -> str:
        return re.sub(r", known subclasses: [^)]*", "", super()._get_help_string(action))


def _is_trainers(group: Any) -> bool:
    return any(action.dest.startswith("trainer") for action in group._group_actions)


def explain(message: str, known: list[str]) -> str:
    """The parser's message in one line, in the words of the command line, with the nearest option that exists.

    Args:
        message: What the parser says, over several lines and in Python's types.
        known: The options there are, such as ``--model.steps``.
    """
    unknown = re.search(
        r"(?:Group '(.+?)' )?does not accept option '(.+?)'|Option '(.+?)' is not|unrecognized arguments: (\S+)",
        message,
    )
    if unknown:
        group, nested, plain, word = unknown.groups()
        option = nested or plain
        return _unknown(
            word.partition("=")[0] if word else f"--{'.'.join(filter(None, (group, option)))}", known
        )
    if message.startswith("Unexpected config"):
        return "the config holds no settings; write lines such as 'model:' and below it '  steps: 50'"
    message = re.sub(r"(?:Parser key|Key) \"([\w.]+)\":\s*", r"--\1: ", message)
    union = re.search(r"Subtypes: \[(.*?)\]\n.*Given value: (.*)", message, re.DOTALL)
    if union:
        key = message.partition(": ")[0]
        message = f"{key}: Expected one of {union[1]}. Got value: {union[2]}"
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message).replace("NoneType", "null")
    message = re.sub(r"typing\.Literal\[([^]]*)\]", r"one of \1", message)
    return (
        " ".join(message.split())
        .replace("Expected a int", "Expected an int")
        .replace("Expected a one", "Expected one")
    )


def _unknown(name: str, known: list[str]) -> str:
    if not name.startswith("--"):
        return f"{name} is not an option; a value belongs after one, as in --data.image {name}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    end = name.removeprefix("--").rpartition(".")[2]
    same_end = [other for other in known if other.rpartition(".")[2] == end]
    best = (same_end or near)[:1]
    hint = f"did you mean {best[0]}?" if best else "--help lists those there are"
    return f"unknown option {name}; {hint}"


def read_options(kind: type[Options], words: list[str], prog: str, description: str) -> Options:
    """An instance of a dataclass whose fields are options of the command line and of ``--config``.

    Args:
        kind: The dataclass; fields that are dataclasses become groups such as ``--model.steps``.
        words: The words after the verb.
        prog: What comes before them, for the help.
        description: What the verb does, for the help.
    """
    parser = OneLineParser(prog=prog, description=description)
    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="Settings in YAML; here or in configs/."
    )
    parser.add_class_arguments(kind)
    config = parser.instantiate(parser.parse_args(words))
    config.pop("config", None)
    return kind(**config)


def check_options(kind: type, given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Options from elsewhere than the command line, each brought to the type of the dataclass's field.

    Raises:
        UserError: There is no such option, or its value is of another type.
    """
    parser = OneLineParser()
    parser.add_class_arguments(kind)
    return [dict(vars(parser.parse_object(dict(one), defaults=False))) for one in given]
