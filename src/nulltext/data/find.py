"""Finds pictures: what files, folders, globs and metadata files name, each once, in a fixed order."""

import glob
import os
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from nulltext.data.decode import SUFFIXES, UNREAD
from nulltext.data.metadata import METADATA_NAMES, METADATA_SUFFIXES, Row, read_metadata
from nulltext.data.text import on_disk
from nulltext.errors import UserError

WINDOWS_NAMES = re.compile(r"(con|nul|aux|prn|com\d|lpt\d)(\..*)?", re.IGNORECASE)
LONGEST_NAME = 180  # bytes; file systems allow 255, and results put more behind it
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")  # of files without a suffix


class Tables(dict[Path, dict[Path, Row]]):
    """The rows of the metadata files met on the way, by their pictures; each file is read once."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str]] = []  # (place, reason)

    def __missing__(self, table: Path) -> dict[Path, Row]:
        rows, problems = read_metadata(table)
        self.broken += problems
        self[table] = {row.path: row for row in rows}
        return self[table]

    def row_of(self, picture: Path, top: Path) -> Row:
        """The picture's row in the nearest metadata file between its folder and ``top``."""
        for folder in picture.parents:
            if tables := _tables_of(folder):
                return self[tables[0]].get(picture, Row(picture))
            if folder == top:
                break
        return Row(picture)


def find_pictures(wanted: Sequence[Path | str]) -> tuple[list[Row], list[tuple[str, str]]]:
    """What files, folders, globs and metadata files name: a row a picture, in a fixed order, each once.

    Linked files and folders are followed, each folder once. Picture files that cannot be read are listed as well, so
    that decoding them says why. A folder's masks and true pictures of edits are none.

    Returns:
        The rows, and what could not be read as (place, reason).

    Raises:
        UserError: One of them names nothing.
    """
    tables, found = Tables(), list[Row]()
    for path in map(on_disk, wanted):
        if path.suffix.lower() in METADATA_SUFFIXES and path.is_file():
            found += tables[path].values()
        elif os.path.isdir(path):
            named = [row for table in _tables_of(path) for row in tables[table].values()]
            besides = {mask_or_truth for row in named for mask_or_truth in (row.mask_path, row.target_path)}
            files = sorted(set(_files(path, tables.broken)) - besides)
            found += [tables.row_of(picture, path) for picture in files] + named
        else:
            found += [tables.row_of(picture, picture.parent) for picture in _expand(path)]
    rows: dict[Path, Row] = {}
    for row in found:
        rows.setdefault(row.path, row)
    if not rows and not tables.broken:
        names = ", ".join(map(str, wanted))
        raise UserError(f"no picture in {names}; pictures end in .png, .jpg, .webp, ...")
    return list(rows.values()), tables.broken


def _tables_of(folder: Path) -> list[Path]:
    return [table for name in METADATA_NAMES if (table := folder / name).is_file()]


def _files(top: Path, broken: list[tuple[str, str]]) -> Iterator[Path]:
    """The picture files below a folder, real folders before linked ones, each folder once; hidden ones are none."""
    folders, seen = deque([top]), set[str]()
    while folders:
        folder = folders.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            broken.append((str(folder), f"cannot be read: {error.strerror}; check its permissions"))
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if not os.path.isdir(path):
                if is_picture_file(path):
                    yield path
            elif entry.is_symlink():
                folders.append(path)
            else:
                folders.appendleft(path)


def is_picture_file(path: Path) -> bool:
    """Whether a name ends like a picture's (``.jpg``, ``.jpg_large``), or a file without an end begins like one."""
    suffix = path.suffix.lower()
    if suffix or not path.is_file():
        return suffix in SUFFIXES | UNREAD or suffix.startswith((".jpg", ".jpeg", ".png", ".webp"))
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(MAGIC)
    except OSError:
        return False


def _expand(path: Path) -> list[Path]:
    """The pictures that a glob matches, sorted; a file as it is."""
    if os.path.exists(path) or not glob.has_magic(str(path)):
        return [path]
    for pattern in _patterns(path):
        found = map(Path, glob.glob(pattern, recursive=True))
        if pictures := sorted(p for p in found if is_picture_file(p) and not p.is_dir()):
            return pictures
    raise UserError(f"no picture matches {path}; quote the pattern and check the folder")


def _patterns(path: Path) -> list[str]:
    """A glob as it is written, then with its brackets meant as they are; folders that exist so come first."""
    folder, parts = Path(path.anchor), [path.anchor]
    for part in path.relative_to(path.anchor).parts:
        folder = on_disk(folder / part)
        parts.append(glob.escape(folder.name) if os.path.lexists(folder) else part)
    patterns = [os.path.join(*parts), str(path).replace("[", "[[]")]
    return patterns + [unicodedata.normalize(form, p) for form in ("NFC", "NFD") for p in patterns]


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder name for each picture: its stem, numbered where another has it already."""
    taken = {"checkpoints", "edits"}  # folders of a run that are no picture's
    names: dict[Path, str] = {}
    for path in paths:
        stem = unicodedata.normalize("NFC", path.stem)
        stem = re.sub(r"[^\w.\- ()+,@]", "_", stem)[:100].strip(". ") or "picture"
        stem = f"{stem}_" if WINDOWS_NAMES.fullmatch(stem) else stem
        stem = stem.encode()[:LONGEST_NAME].decode(errors="ignore")
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names
