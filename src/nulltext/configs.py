"""Configs are read from files that nobody vouches for: no tags, no bombs."""

from __future__ import annotations

from pathlib import Path

import yaml

from nulltext.errors import UserError

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # settings, once every alias is written out


def check_config(path: Path) -> None:
    """Refuses a YAML file that a parser would choke on.

    Aliases of aliases make a few lines unfold to gigabytes, a thousand brackets overflow the stack, and tags could
    name what is to be called. Nothing is built from the file here, only its nodes are counted.

    Raises:
        UserError: The file cannot be read, is no YAML, or is one of those.
    """
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
    """The nodes below, each alias counted as what it stands for; ``counted`` holds those met already."""
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
