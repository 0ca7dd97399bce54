"""A parser whose errors are one line that says what to type, and whose help shows our own options first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import register_type

from nulltext.errors import UserError

Options = TypeVar("Options")
TRAINER_NOTE = """
Lightning's Trainer: --trainer.precision 32-true, bf16-mixed or 16-mixed; --trainer.accelerator gpu;
--trainer.default_root_dir FOLDER; and all its others, which --print_config shows.
"""
HELP = {
    "help": "These lines.",
    "config": "Settings in YAML, looked for here and in configs/, with or without .yaml.",
    "print_config": "Prints all settings as YAML, which --config reads again.",
}
# ~ is the home folder in words and configs alike
register_type(Path, deserializer=lambda value: Path(value).expanduser(), fail_already_registered=False)
UNKNOWN = re.compile(
    r"(?:Group '(?P<group>.+?)' )?does not accept option '(?P<nested>.+?)'|Option '(?P<plain>.+?)' is not"
    r"|unrecognized arguments: (?P<word>[^\s=]+)"
)


class OneLineParser(ArgumentParser):
    """Raises a mistake as a ``UserError`` instead of printing the usage, and hides the Trainer's options in the help.

    They stay in ``--print_config``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["formatter_class"] = partial(WideFormatter, width=120, max_help_position=34)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the mistake as a ``UserError`` of one line."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for parser in (getattr(self._subcommands_action, "choices", None) or {}).values():
            known += parser._option_string_actions
        raise UserError(explain(message, known)) from ex

    def format_help(self, *args: Any) -> str:
        """Our options; the Trainer's in one line."""
        groups, usage = self._action_groups, self.usage
        ours = [g for g in groups if not any(a.dest.startswith("trainer") for a in g._group_actions)]
        self._action_groups = ours
        self.usage = f"python {self.prog.replace(' [options]', '')} [--config NAME] [--OPTION VALUE] ..."
        for action in self._actions:
            action.help = HELP.get(action.dest, action.help)
        try:
            return super().format_help(*args) + (TRAINER_NOTE if len(ours) < len(groups) else "")
        finally:
            self._action_groups, self.usage = groups, usage


class WideFormatter(DefaultHelpFormatter):
    """Leaves out the types, long lists of classes, and the options that read a group from a file."""

    def add_argument(self, action: Any) -> None:
        """Adds an option unless it reads a group."""
        if type(action).__name__ != "_ActionConfigLoad":
            super().add_argument(action)

    def _get_help_string(self, action: Any) -> str:
        text = re.sub(r", known subclasses: [^)]*", "", super()._get_help_string(action))
        text = re.sub(r"type: %\(type\)s(, )?", "", text)
        if action.default in (None, [], {}):  # the option's own line says what it means
            text = text.replace("default: %(default)s", "")
        return text.removesuffix(" ()")


def explain(message: str, known: list[str]) -> str:
    """The parser's message in one line, in the words of the command line, with the nearest of the known options."""
    if unknown := UNKNOWN.search(message):
        group, nested, plain, word = unknown.groups()
        return _unknown(word or f"--{'.'.join(filter(None, (group, nested or plain)))}", known)
    if message.startswith("Unexpected config"):
        return "the config holds no settings; write lines such as 'model:' and below it '  steps: 50'"
    message = re.sub(r"(?:Parser key|Key) \"([\w.]+)\":\s*", r"--\1: ", message)
    if union := re.search(r"Subtypes: \[(.*?)\]\n.*Given value: (.*)", message, re.DOTALL):
        message = f"{message.partition(': ')[0]}: Expected one of {union[1]}. Got value: {union[2]}"
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message).replace("NoneType", "null")
    message = " ".join(re.sub(r"typing\.Literal\[([^]]*)\]", r"one of \1", message).split())
    return message.replace("Expected a int", "Expected an int").replace("Expected a one", "Expected one")


def _unknown(name: str, known: list[str]) -> str:
    if not name.startswith("--"):
        return f"{name} is not an option; a value belongs after one, as in --data.image {name}"
    end = name.removeprefix("--").rpartition(".")[2]
    near = [other for other in known if other.rpartition(".")[2] == end]
    near += difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "--help lists those there are"
    return f"unknown option {name}; {hint}"


def read_options(kind: type[Options], words: list[str], prog: str, description: str) -> Options:
    """An instance of a dataclass whose fields are options of the command line and of ``--config``.

    Fields that are dataclasses become groups such as ``--model.steps``. ``prog`` is what comes before the words.
    """
    parser = OneLineParser(prog=prog, description=description)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_class_arguments(kind)
    config = parser.instantiate(parser.parse_args(words))
    config.pop("config", None)
    return kind(**config)


def check_options(kind: type, given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Options from elsewhere than the command line, each brought to the type of the dataclass's field."""
    parser = OneLineParser()
    parser.add_class_arguments(kind)
    return [dict(vars(parser.parse_object(dict(one), defaults=False))) for one in given]
