"""Finds pictures: what files, folders, globs and metadata files name, each once, in a fixed order."""

import glob
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from nulltext.data.decode import SUFFIXES, UNREAD
from nulltext.data.metadata import METADATA_NAMES, METADATA_SUFFIXES, Row, read_metadata
from nulltext.data.text import on_disk
from nulltext.errors import UserError

RESERVED_NAMES = ("checkpoints", "edits")  # folders of a run that are no picture's
WINDOWS_NAMES = re.compile(r"(con|nul|aux|prn|com\d|lpt\d)(\..*)?", re.IGNORECASE)
LONGEST_NAME = 180  # bytes; file systems allow 255, and results put more behind it
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
"""How pictures begin, for files without a suffix."""


def find_pictures(wanted: Sequence[Path | str]) -> tuple[list[Row], list[tuple[str, str]]]:
    """What files, folders, globs and metadata files name: a row a picture, in a fixed order, each once.

    Linked files and folders are followed, each folder once. Picture files that cannot be read are listed as well, so
    that decoding them says why.

    Returns:
        The rows, and what could not be read as (place, reason).

    Raises:
        UserError: One of them names nothing.
    """
    tables = Tables()
    found: list[Row] = []
    for path in map(on_disk, wanted):
        if path.suffix.lower() in METADATA_SUFFIXES and path.is_file():
            found += tables.rows(path)
        elif os.path.isdir(path):
            found += _folder(path, tables)
        else:
            found += [tables.row_of(picture, picture.parent) for picture in _expand(path)]
    rows: dict[Path | None, Row] = {}
    for row in found:
        rows.setdefault(row.path, row)
    if not rows and not tables.broken:
        raise UserError(
            f"no picture in {', '.join(map(str, wanted))}; pictures end in .png, .jpg, .webp, ..."
        )
    return list(rows.values()), tables.broken


class Tables:
    """The metadata files met on the way, each read once."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str]] = []
        self._rows: dict[Path, dict[Path, Row]] = {}

    def rows(self, table: Path) -> list[Row]:
        """The rows of a metadata file; what is wrong with others goes to ``broken``."""
        if table not in self._rows:
            found, problems = read_metadata(table)
            self.broken += problems
            self._rows[table] = {row.path: row for row in found if row.path}
        return list(self._rows[table].values())

    def row_of(self, picture: Path, top: Path) -> Row:
        """The picture's row in the nearest metadata file between its folder and ``top``."""
        for folder in (picture.parent, *picture.parent.parents):
            for table in (folder / name for name in METADATA_NAMES):
                if table.is_file():
                    self.rows(table)
                    return self._rows[table].get(picture, Row(path=picture))
            if folder == top:
                break
        return Row(path=picture)


def _folder(folder: Path, tables: Tables) -> list[Row]:
    """A folder's pictures, sorted, and what its metadata file names besides; masks are no pictures."""
    named = [
        row for name in METADATA_NAMES if (folder / name).is_file() for row in tables.rows(folder / name)
    ]
    besides = {path for row in named for path in (row.mask_path, row.target_path)}
    files = sorted(path for path in _files(folder, tables.broken) if path not in besides)
    return [tables.row_of(path, folder) for path in files] + named


def _files(top: Path, broken: list[tuple[str, str]]) -> Iterator[Path]:
    """The picture files below a folder, real folders before linked ones, each folder once; hidden ones are none."""
    folders, links, seen = [top], list[Path](), set[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
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
            if os.path.isdir(path):
                (links if entry.is_symlink() else folders).append(path)
            elif is_picture_file(path):
                yield path


def is_picture_file(path: Path) -> bool:
    """Whether a name ends like a picture's (``.jpg``, ``.jpg_large``), or a file without an end begins like one."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in UNREAD or suffix.startswith((".jpg", ".jpeg", ".png", ".webp")):
        return True
    if suffix or not path.is_file():
        return False
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
        pictures = [found for p in glob.glob(pattern, recursive=True) if is_picture_file(found := Path(p))]
        if pictures:
            return sorted(p for p in pictures if not p.is_dir())
    raise UserError(f"no picture matches {path}; quote the pattern and check the folder")


def _patterns(path: Path) -> list[str]:
    """A glob as it is written, then with its brackets meant as they are; folders that exist so come first."""
    folder, parts = Path(path.anchor), list[str]()
    for part in path.parts[1:] if path.anchor else path.parts:
        folder = on_disk(folder / part)
        parts.append(glob.escape(folder.name) if os.path.lexists(folder) else part)
    written = os.path.join(path.anchor, *parts)
    every = os.path.join(
        path.anchor, *(re.sub(r"\[", "[[]", part) for part in path.parts[bool(path.anchor) :])
    )
    spelt = [unicodedata.normalize(form, p) for form in ("NFC", "NFD") for p in (written, every)]
    return list(dict.fromkeys([written, every, *spelt]))


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder name for each picture: its stem, numbered where another has it already."""
    taken = {name.casefold() for name in RESERVED_NAMES}
    names: dict[Path, str] = {}
    for path in paths:
        stem = unicodedata.normalize("NFC", path.stem)
        stem = re.sub(r"[^\w.\- ()+,@]", "_", stem)[:100].strip(". ") or "picture"
        stem = f"{stem}_" if WINDOWS_NAMES.fullmatch(stem) else stem
        while len(stem.encode()) > LONGEST_NAME:
            stem = stem[:-1]
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names
