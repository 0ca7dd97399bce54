"""Files that are either whole or not there."""

import fcntl
import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nulltext.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of one.

    One process writes a file at a time. What a writer that was killed left behind goes when the file is written again.

    Args:
        path: Where the file is to stand. Its folder is made if need be.
        write: Called with a temporary path in the same folder (hidden name, same suffix); fills it.

    Raises:
        UserError: The folder cannot be made or written, or the disk is full. Nothing is left behind.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(
            f".{glob.escape(path.stem[:40])}.????????{glob.escape(path.suffix)}"
        ):
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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in here with the same folder, where the file system can lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, such as some of the network's
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
    """Asks the system to put a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The permissions new files lack; there is no way to read it but to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
