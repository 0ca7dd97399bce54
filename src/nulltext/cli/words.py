"""The words of a command line before the parser reads them, and the configs that they name.

Configs are read from files that nobody vouches for: no tags, no bombs. Every mistake is a ``UserError``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nulltext.errors import UserError

if TYPE_CHECKING:
    import yaml

CONFIG = ("--config", "-c")
MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # settings, once every alias is written out


@dataclass(frozen=True)
class Listed:
    """An option that takes a list."""

    option: str  # such as --data.image
    example: str  # for the error where no value is given
    greedy: bool = True  # all words up to the next option belong to it, as a shell's *.jpg gives them
    commas: bool = False  # a value with commas or blanks is several


def gather(words: Sequence[str], *lists: Listed) -> list[str]:
    """Each option that takes a list made one word, ``--option=[...]``; later uses add to earlier ones."""
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
        given = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--") and (listed.greedy or not given):
            given.append(rest.pop(0))
        if not given:
            raise UserError(f"{option} needs a value, such as {option} {listed.example}")
        if listed.commas:
            given = [v for part in given for v in re.split(r"[,\s]+", part.strip("[] ")) if v]
        values.setdefault(option, []).extend(given)
    # not ASCII: YAML, which reads this, refuses the surrogate pairs of JSON's escapes
    return [*others, *(f"{name}={json.dumps(given, ensure_ascii=False)}" for name, given in values.items())]


def as_words(options: Mapping[str, str]) -> list[str]:
    """Options as words of a command line; a value never begins with dashes."""
    pairs = options.items()
    return [*itertools.chain(*((f"--{k}={v}",) if v.startswith("-") else (f"--{k}", v) for k, v in pairs))]


def as_options(words: Sequence[str]) -> dict[str, str]:
    """The inverse of ``as_words``."""
    parts = [*itertools.chain(*(word.split("=", 1) if word.startswith("--") else (word,) for word in words))]
    return {name.removeprefix("--"): value for name, value in zip(parts[::2], parts[1::2], strict=True)}


def tidy(words: Sequence[str]) -> list[str]:
    """What shells leave undone: ``--option=~/x`` with the home folder's path, and surrogate pairs joined.

    Bytes that are no UTF-8 stay as they are.
    """
    tidied = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if re.match(r"~\w*[/\\]", value):
            word = option + equals + os.path.expanduser(value)
        tidied.append(re.sub("[\ud800-\udbff][\udc00-\udfff]", _join, word))
    return tidied


def hashed(words: Sequence[str], option: str) -> str | None:
    """The last value of an option where it begins with ``#``, which YAML, by which options are read, drops."""
    joined = [word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}=")]
    apart = [value for word, value in itertools.pairwise(words) if word == option]
    value = [*apart, *joined][-1:]
    return value[0] if value and value[0].startswith("#") else None


def _join(pair: re.Match[str]) -> str:
    """The character beyond the basic plane that came as two halves."""
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def in_utf8(words: Sequence[str]) -> None:
    """Starts Python again in UTF-8 mode, for good, where its locale (``LC_ALL=C``) could not read the words."""
    unread = re.search("[\udc80-\udcff]", "".join(words)) and "utf" not in sys.getfilesystemencoding()
    if unread and "PYTHONUTF8_TRIED" not in os.environ:
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUTF8_TRIED": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def find_value(words: Sequence[str], key: str) -> Any:
    """What the words and their configs say of an option such as ``model.method``, before any parser is built.

    Configs are paths already. The last place that names it decides, as in the parser; None where nothing does.
    """
    found: Any = None
    for word, after in itertools.pairwise([*words, "--"]):
        option, equals, value = word.partition("=")
        if not equals and after.startswith("--"):
            continue
        value = value if equals else after
        if option == f"--{key}":
            found = value
        elif option in CONFIG:
            content = _read(Path(value))
            for part in key.split("."):
                content = content.get(part) if isinstance(content, dict) else None
            found = found if content is None else content
    return found


def _read(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return None  # the parser says what is wrong with it


def find_configs(words: Sequence[str]) -> list[str]:
    """The words with each ``--config NAME`` replaced by the path of that file."""
    found: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, name = word.partition("=")
        if option not in CONFIG:
            found.append(word)
            continue
        name = name if equals else next(rest, "")
        if not name:
            raise UserError("--config needs a name, such as nulltext.yaml")
        found += ["--config", str(find_config(name))]
    return found


def find_config(name: str) -> Path:
    """A config by name: as it is, then in configs/ here, then in those that come with the program."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    shipped = [checkout / "configs"] if (checkout / "pyproject.toml").is_file() else []
    named = [Path("configs"), *shipped, package / "configs"]  # the last in the installed wheel
    for folder, ending in itertools.product((Path(), *named), ("", ".yaml", ".yml")):
        path = folder / (name + ending)
        if path.is_file():
            check_config(path)
            return path
    names = sorted({path.name for folder in named for path in folder.glob("*.yaml")})
    raise UserError(f"no config {name} here or in configs/; there are {', '.join(names) or 'none'}")


def check_config(path: Path) -> None:
    """Refuses a YAML file that a parser would choke on; builds nothing from it, only counts its nodes.

    Aliases of aliases make a few lines unfold to gigabytes, a thousand brackets overflow the stack, and tags could
    name what is to be called.
    """
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"the config {path} has more than {MAX_BYTES} bytes; settings take a few lines")
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        nodes = _count(node, {}) if node is not None else 0
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the config {path} is not UTF-8 text; save it as UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"the config {path} is no YAML: {' '.join(str(error).split())[:300]}") from error
    except RecursionError as error:
        raise UserError(f"the config {path} is nested too deeply; settings are two or three deep") from error
    if nodes > MAX_NODES:
        raise UserError(f"the config {path} unfolds to more than {MAX_NODES} values; write them out")


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """The nodes below, an alias counts as its content; ``counted`` holds the nodes that were met."""
    import yaml

    if id(node) not in counted:
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            raise ValueError(f"the tag {node.tag[:60]} is not read")
        counted[id(node)] = MAX_NODES + 1  # what holds itself is without end
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = itertools.chain(*children)
        counted[id(node)] = min(1 + sum(_count(child, counted) for child in children), MAX_NODES + 1)
    return counted[id(node)]
