"""A file is whole or not there."""

import os
import stat

import pytest
from safetensors import SafetensorError

from nulltext.errors import UserError
from nulltext.files import write_atomically


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
