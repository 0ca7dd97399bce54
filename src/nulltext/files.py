"""Files that are either whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from nulltext.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file so that a reader sees the old one or the new one, never half of one.

    Args:
        path: Where the file is to stand. Its folder is made if need be.
        write: Called with a temporary path in the same folder (hidden name, same suffix); fills it.

    Raises:
        UserError: The folder cannot be made or written, or the disk is full. Nothing is left behind.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write {path}: {reason}; free the disk or choose another folder to write to")


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
