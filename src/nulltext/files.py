"""Files that are either whole or absent, and locks on folders, on every system."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nulltext.errors import UserError

HELD = {errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
"""What the system answers where another process has the lock."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of one.

    One process writes a file at a time. What a killed writer left behind goes when the file is written again.

    Args:
        path: The file. Its folder is made if need be.
        write: Called with a temporary path in the same folder (hidden name, same suffix); fills it.

    Raises:
        UserError: The folder cannot be made or written, or the disk is full. Nothing is left behind.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stem, suffix = glob.escape(path.stem[:40]), glob.escape(path.suffix)
        for leftover in path.parent.glob(f".{stem}.????????{suffix}"):
            leftover.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary = Path(name)
    try:
        write(temporary)
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _flush(path.parent)
    except Exception as error:
        cause = _cause(error)
        if cause is None:
            raise
        raise _unwritable(path, cause) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all; line ends stay as they are.

    Raises:
        UserError: As ``write_atomically``.
    """
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in here with the same folder, where the file system can lock."""
    lock = lock_folder(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def lock_folder(folder: Path, *, wait: bool) -> int | None:
    """Locks a folder until the descriptor is closed or the process ends, however it ends.

    Args:
        folder: It must be there.
        wait: Whether to wait for a process that has the lock.

    Returns:
        The descriptor to close; None where the file system has no locks, as some of the network's.

    Raises:
        BlockingIOError: Another process has the lock, and ``wait`` is off.
    """
    descriptor = _open_lock(folder)
    while True:
        try:
            _lock(descriptor)
            return descriptor
        except OSError as error:
            if error.errno in HELD and wait:
                time.sleep(0.01)
                continue
            os.close(descriptor)
            if error.errno in HELD:
                raise BlockingIOError(error.errno, "another process has the lock", str(folder)) from None
            return None


def _open_lock(folder: Path) -> int:
    """What is locked: the folder itself, or a file beside the temporary ones where folders cannot be opened."""
    if sys.platform != "win32":
        return os.open(folder, os.O_RDONLY)
    key = hashlib.sha256(os.fsencode(folder.resolve(strict=True))).hexdigest()[:32]
    return os.open(Path(tempfile.gettempdir()) / f"nulltext-{key}.lock", os.O_RDWR | os.O_CREAT)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}; free the disk or choose another folder to write to")


def _cause(error: Exception) -> OSError | None:
    """The system's error behind another; a library in Rust, such as safetensors, tells it in words only."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def _flush(path: Path) -> None:
    """Has the system put a file, or a folder's list of names, on the disk."""
    if path.is_dir() and sys.platform == "win32":
        return  # no folder can be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The permissions that new files lack; the only way to read it is to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
