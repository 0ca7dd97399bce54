"""A file is whole or absent, and a folder is locked for one process."""

import errno
import os
import stat
import subprocess
import sys
import types

import pytest
from safetensors import SafetensorError

from nulltext.errors import UserError
from nulltext.files import alone, lock_folder, write_atomically, write_text


def test_writes_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, lambda temporary: temporary.write_text("whole"))
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["file.txt"]


def test_temporary_lies_in_the_same_folder_with_the_same_suffix(tmp_path):
    seen = []
    write_atomically(tmp_path / "a.png", lambda t: (seen.append(t), t.write_bytes(b""))[1])
    assert seen[0].parent == tmp_path and seen[0].suffix == ".png" and seen[0].name.startswith(".")


def test_a_crash_while_writing_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def crash(temporary):
        temporary.write_text("half of the n")
        raise ValueError("crash")

    with pytest.raises(ValueError, match="crash"):
        write_atomically(path, crash)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_new_files_get_the_usual_permissions(tmp_path):
    path = tmp_path / "file.txt"
    before = os.umask(0o027)
    try:
        write_atomically(path, lambda temporary: temporary.write_text("x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(blocker / "below.txt", lambda temporary: temporary.write_text("x"))


def test_a_full_disk_that_a_writer_in_rust_met_is_the_users_error(tmp_path):
    def full(temporary):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; free the disk"):
        write_atomically(tmp_path / "a.safetensors", full)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_the_users_error_and_leaves_nothing(tmp_path):
    def full(temporary):
        temporary.write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write_atomically(tmp_path / "file.txt", full)
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_goes_when_the_file_is_written_again(tmp_path):
    for name in (".a.12345678.png", ".other.12345678.png", ".a.12345678.txt", "a.12345678.png"):
        (tmp_path / name).write_text("left")
    write_atomically(tmp_path / "a.png", lambda temporary: temporary.write_text("whole"))
    assert sorted(os.listdir(tmp_path)) == [
        ".a.12345678.txt",
        ".other.12345678.png",
        "a.12345678.png",
        "a.png",
    ]


def test_a_text_is_written_as_it_is_and_a_name_that_is_no_text_is_escaped(tmp_path):
    write_text(tmp_path / "a.txt", "one\r\ntwo \N{SHEEP}\n")
    assert (tmp_path / "a.txt").read_bytes() == "one\r\ntwo \N{SHEEP}\n".encode()
    write_text(tmp_path / "a.txt", "\udcff.png")
    assert (tmp_path / "a.txt").read_bytes() == b"\\udcff.png"


def test_a_folder_is_locked_for_one_process_until_it_lets_go_or_ends(tmp_path):
    code = "import sys; from pathlib import Path; from nulltext.files import lock_folder\n"
    code += "lock_folder(Path(sys.argv[1]), wait=True); print('locked', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(BlockingIOError):
            lock_folder(tmp_path, wait=False)
        other.kill()
    with alone(tmp_path), pytest.raises(BlockingIOError):
        lock_folder(tmp_path, wait=False)
    os.close(lock_folder(tmp_path, wait=False))


def test_windows_locks_a_file_beside_the_temporary_ones_and_leaves_the_folder_empty(tmp_path, monkeypatch):
    held = set()

    def locking(descriptor, mode, count):
        assert (mode, count) == (2, 1)
        key = os.fstat(descriptor).st_ino
        if key in held:
            raise OSError(errno.EACCES, "Permission denied")
        held.add(key)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(sys, "platform", "win32")
    (tmp_path / "run").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = lock_folder(tmp_path / "run", wait=False)
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path / "run", wait=False)
    os.close(first)
    held.clear()
    with alone(tmp_path / "run"):
        assert len(held) == 1
    assert os.listdir(tmp_path / "run") == []
    write_atomically(tmp_path / "run" / "a.txt", lambda temporary: temporary.write_text("x"))
    assert os.listdir(tmp_path / "run") == ["a.txt"]


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def no_locks(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("nulltext.files._lock", no_locks)
    assert lock_folder(tmp_path, wait=False) is None
    with alone(tmp_path):
        assert os.listdir(tmp_path) == []
