"""Every command in README and docs/ is one that the program takes: each option and each file is there."""

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from nulltext.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = (
    "python main.py",
    "python benchmarks/",
    "python examples/",
    "python -m nulltext",
    "pytest ",
    "tensorboard ",
)
HISTORY = ("leads.md",)
"""Pages whose commands were typed at the commits that they name; so was any command before "at commit"."""


def commands(page: Path) -> list[str]:
    """The commands of a page, in blocks and within lines."""
    text = re.sub(r"`[^`]+`\s+at\s+commit", "", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    parts = [part.strip() for block in blocks for part in block.split("&&")]
    return list(dict.fromkeys(part for part in parts if part.startswith(PROGRAMS)))


ALL = [
    pytest.param(command, id=f"{page.name}: {command}")
    for page in PAGES
    if page.name not in HISTORY
    for command in commands(page)
]


def test_there_are_commands():
    assert len(ALL) > 30


@pytest.mark.parametrize("command", ALL)
def test_a_documented_command_is_taken(command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command.split(" # ")[0].split(", `")[0], comments=True)
    words = [word for word in words if word != "..."]
    if program in ("pytest", "tensorboard"):
        missing = [word for word in words if "/" in word and not (ROOT / word).exists()]
        assert not missing
    elif words[0] == "main.py":
        _, verb, *options = words if len(words) > 1 else [*words, "--help"]
        helps = verb.startswith("-") or verb == "app"
        assert main([verb, "--help"] if helps else [verb, *options, "--print_config"]) == 0
    elif words[0] == "-m":
        _module_takes(words[1:], monkeypatch)
    else:
        assert (ROOT / words[0]).is_file()
        if words[0].startswith("benchmarks/"):
            _benchmark_takes(Path(words[0]).stem, words[1:], monkeypatch)


def _module_takes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from nulltext.farmyard.__main__ import make_parser

    assert words[0] == "nulltext.farmyard"
    if words[1:2] == ["train"]:
        assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))
    elif len(words) > 1:
        make_parser().parse_args(words[1:])


class Parsed(Exception):
    """A command line was read to its end."""


def _benchmark_takes(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is started, and stopped once it has read its options."""
    read = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        read(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    with pytest.raises(Parsed):
        importlib.import_module(name).main()
