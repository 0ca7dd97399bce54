"""The verb ``app`` before anything is loaded."""

from __future__ import annotations

import builtins
import socket
import subprocess
import sys
from typing import Any

import pytest

from nulltext.cli import main
from nulltext.cli.app import split


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_pages_own_options_are_parted_from_those_of_fit() -> None:
    words = ["--config", "a.yaml", "--server_port", "7000", "--share", "--device=cuda", "--password=x y"]
    assert split(words) == (
        ["--server_port=7000", "--share=true", "--password=x y"],
        ["--config", "a.yaml", "--device=cuda"],
    )


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--server_port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"port {port}" in error and f"such as {port + 1}" in error


@pytest.mark.parametrize("others", [["--server_name", "0.0.0.0"], ["--share"]])
def test_a_page_for_others_needs_a_password(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", *others]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--password" in error and others[0] in error


def test_without_gradio_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "gradio":
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["app", "--server_port", str(free_port())]) == 2
    out, error = capsys.readouterr()
    assert "http://127.0.0.1:" in out and "pip install 'nulltext[app]'" in error


def test_help_names_the_options_and_loads_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("--server_name", "--server_port", "--password", "--share", "fit"))


def test_no_large_library_is_imported_before_the_address_is_printed() -> None:
    code = (
        "import sys\n"
        "from nulltext.cli import main\n"
        "main(['app', '--help'])\n"  # reads the options, as a page that opens does
        "sys.exit(', '.join({'diffusers', 'gradio', 'lightning', 'torch', 'transformers'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "\n" and "--server_port" in done.stdout
