"""Configs by name. They are read from files that nobody vouches for: no tags, no bombs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nulltext.cli.words import CONFIG
from nulltext.errors import UserError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # settings, once every alias is written out


def find_configs(words: Sequence[str]) -> list[str]:
    """The words with each ``--config NAME`` replaced by the path of that file.

    Raises:
        UserError: There is no such config; those there are are named.
    """
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
    """A config by name: as it is, then in configs/ here, then in those that come with the program.

    Raises:
        UserError: There is no such file, or it is no config.
    """
    folders = (Path(), Path("configs"), *shipped_configs())
    candidates = [folder / (name + ending) for folder in folders for ending in ("", ".yaml", ".yml")]
    for path in candidates:
        if path.is_file():
            check_config(path)
            return path
    names = sorted({path.name for folder in folders[1:] for path in folder.glob("*.yaml")})
    raise UserError(f"no config {name} here or in configs/; there are {', '.join(names) or 'none'}")


def shipped_configs() -> list[Path]:
    """configs/ of the checkout, and beside the package in the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    inside = [checkout / "configs"] if (checkout / "pyproject.toml").is_file() else []
    return [*inside, package / "configs"]


def check_config(path: Path) -> None:
    """Refuses a YAML file that a parser would choke on.

    Aliases of aliases make a few lines unfold to gigabytes, a thousand brackets overflow the stack, and tags could
    name what is to be called. Nothing is built from the file here, only its nodes are counted.

    Raises:
        UserError: The file cannot be read, is no YAML, or is one of those.
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

    if id(node) in counted:
        return counted[id(node)]
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise ValueError(f"the tag {node.tag[:60]} is not read")
    counted[id(node)] = MAX_NODES + 1  # what holds itself is without end
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    counted[id(node)] = min(1 + sum(_count(child, counted) for child in children), MAX_NODES + 1)
    return counted[id(node)]
