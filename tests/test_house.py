"""The house: which room may import which, and how large things get."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nulltext"
FILES = sorted(SOURCE.rglob("*.py"))

GROUND = {"errors", "files", "imports", "pixels"}
PICTURES = {"data", "metrics", "plots"}
BELOW_EDITING = {*GROUND, *PICTURES, "diffusion", "models", "inversion"}
BELOW_VERBS = {*BELOW_EDITING, "editing", "runs"}
MAY_IMPORT = {
    "errors": set(),
    "imports": {"errors"},
    "files": {"errors"},
    "pixels": {"errors", "files"},
    "diffusion": GROUND,
    "models": {*GROUND, "diffusion"},
    "data": GROUND,
    "metrics": {*GROUND, "data"},
    "plots": {*GROUND, "data", "metrics"},
    "inversion": BELOW_EDITING - {"inversion"},
    "editing": BELOW_EDITING,
    "runs": BELOW_EDITING,
    "evaluation": BELOW_VERBS,
    "training": BELOW_VERBS,
    "farmyard": {*BELOW_VERBS, "evaluation", "training"},
    "cli": {*BELOW_VERBS, "evaluation", "training", "farmyard", "app"},
    "app": {
        *BELOW_VERBS,
        "evaluation",
        "training",
        "cli",
    },  # the page drives the verbs; its own verb opens it
}
"""The rooms that the imports of each room may name, its own aside; every room of the package is a key."""
LIGHTNING = ("training/", "runs/folder.py", "cli/fit.py", "app/desk.py", "farmyard/")
"""What may know Lightning; the page runs fit, the farmyard's recipe trains with it."""
LAZILY = ("nulltext.farmyard", "nulltext.app")
"""What cli imports in functions only."""

MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 60
MOST_ARGUMENTS = 7
MOST_LINES_OF_THE_CORE = 14_780  # a little above what it has, so that growth is noticed


def name_of(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import with the module it names, those in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_downwards_only(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":  # the names that a notebook needs, imported when first used
        return
    for node, module in imports_of(ast.parse(file.read_text(encoding="utf-8"))):
        assert not module.startswith("."), f"line {node.lineno}: a relative import"
        if module.startswith("nulltext."):
            other = module.split(".")[1]
            assert other in {room, *MAY_IMPORT[room]}, f"line {node.lineno}: {room} imports {other}"


def test_cli_imports_the_farmyard_and_the_page_in_functions_only() -> None:
    for file in FILES:
        if room_of(file) == "cli":
            for statement in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    modules = [module for _, module in imports_of(statement)]
                    assert not any(module.startswith(LAZILY) for module in modules), file


def test_only_training_knows_lightning() -> None:
    for file in FILES:
        modules = [module for _, module in imports_of(ast.parse(file.read_text(encoding="utf-8")))]
        if any(module.partition(".")[0] == "lightning" for module in modules):
            assert name_of(file).startswith(LIGHTNING), name_of(file)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_and_functions_are_small(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= MOST_ARGUMENTS, node.name


def test_the_core_is_small() -> None:
    lines = {
        name_of(file): len(file.read_text(encoding="utf-8").splitlines())
        for file in FILES
        if room_of(file) != "farmyard"
    }
    assert sum(lines.values()) <= MOST_LINES_OF_THE_CORE, sum(lines.values())


def test_every_module_imports_where_there_is_no_fcntl_and_no_resource() -> None:
    """As on Windows."""
    modules = [
        ".".join(("nulltext", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for file in FILES
        if file.name != "__main__.py"
    ]
    code = (
        "import importlib, psutil, sys\n"  # psutil needs resource on this system, not on Windows
        "for name in ('fcntl', 'resource', 'termios', 'pwd', 'grp'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
