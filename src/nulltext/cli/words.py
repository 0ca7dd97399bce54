"""The words of a command line before the parser reads them."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nulltext.errors import UserError

CONFIG = ("--config", "-c")


@dataclass(frozen=True)
class Listed:
    """An option that takes a list.

    Attributes:
        option: Such as ``--data.image``.
        example: A value, for the error where there is none.
        greedy: Whether all words up to the next option belong to it, as a shell's ``*.jpg`` gives them.
        commas: Whether a value with commas or blanks is several.
    """

    option: str
    example: str
    greedy: bool = True
    commas: bool = False


def gather(words: Sequence[str], *lists: Listed) -> list[str]:
    """Each option that takes a list made one word, ``--option=[...]``; later uses add to earlier ones.

    Raises:
        UserError: Such an option has no value.
    """
    by_name = {listed.option: listed for listed in lists}
    values: dict[str, list[str]] = {}
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in by_name:
            others.append(word)
            continue
        listed = by_name[option]
        given = [value] if equals else _take(rest, listed.greedy)
        if not given:
            raise UserError(f"{option} needs a value, such as {option} {listed.example}")
        if listed.commas:
            given = [v for part in given for v in re.split(r"[,\s]+", part.strip("[] ")) if v]
        values.setdefault(option, []).extend(given)
    # not ASCII: YAML, which reads this, refuses the surrogate pairs of JSON's escapes
    return [*others, *(f"{name}={json.dumps(given, ensure_ascii=False)}" for name, given in values.items())]


def _take(rest: list[str], greedy: bool) -> list[str]:
    taken: list[str] = []
    while rest and not rest[0].startswith("--") and (greedy or not taken):
        taken.append(rest.pop(0))
    return taken


def tidy(words: Sequence[str]) -> list[str]:
    """What shells leave undone: ``--option=~/x`` with the home folder's path, and surrogate pairs joined."""
    return [_join_surrogates(_expand_home(word)) for word in words]


def _expand_home(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + os.path.expanduser(value) if re.match(r"~\w*[/\\]", value) else word


def _join_surrogates(word: str) -> str:
    """Characters beyond the basic plane that came as two halves; bytes that are no UTF-8 stay as they are."""
    return re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"),
        word,
    )


def in_utf8(words: Sequence[str]) -> None:
    """Starts Python again in UTF-8 mode where its locale could not read the words (``LC_ALL=C``, for example).

    Does not return in that case.
    """
    unread = any("\udc80" <= character <= "\udcff" for word in words for character in word)
    if (
        unread
        and sys.getfilesystemencoding() not in ("utf-8", "utf8")
        and "PYTHONUTF8_TRIED" not in os.environ
    ):
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUTF8_TRIED": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def find_value(words: Sequence[str], key: str) -> Any:
    """What the words and their configs say of an option, before any parser is built; None where nothing does.

    Args:
        words: Configs are paths already.
        key: Such as ``model.method``. The last place that names it decides, as in the parser.
    """
    found: Any = None
    for option, value in _pairs(words):
        if option == f"--{key}":
            found = value
        elif option in CONFIG:
            content = _read(Path(value))
            for part in key.split("."):
                content = content.get(part) if isinstance(content, dict) else None
            found = found if content is None else content
    return found


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, after in itertools.pairwise([*words, "--"]):
        option, equals, value = word.partition("=")
        if equals:
            yield option, value
        elif not after.startswith("--"):
            yield word, after


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # the parser says what is wrong with it
