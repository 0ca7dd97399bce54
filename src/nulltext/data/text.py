"""Text and file names as people save them: encodings told apart, accents in either form, ``~`` expanded."""

import codecs
import os
import re
import unicodedata
from pathlib import Path

from nulltext.errors import UserError

MAX_PROMPT_CHARACTERS = 10_000  # more than any tokenizer reads
MARKS = {  # the longer mark first: UTF-32's begins like UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WESTERN = frozenset(  # what Western Latin writes beyond ASCII
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœ\u2018\u2019\u201c\u201d«»\u2013—…°·€©®¡¿"
)


def decode_text(content: bytes, name: str, whole: bool = True) -> str:
    """The text of a file called ``name``: its byte order mark decides, else it is UTF-8.

    A file that is not ``whole`` may end inside its last character. A UserError where it is in neither: guessing a code
    page would invent words.
    """
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content, final=whole)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            f"{name} is not UTF-8 text, nor marked as UTF-16; save it as UTF-8 "
            f"(in Notepad: Save as, Encoding: UTF-8)"
        )
    return text


def read_bytes(path: Path, most: int, larger: str = "") -> bytes:
    """The first ``most`` bytes of a file.

    A UserError where it cannot be read, or where it has more and ``larger`` says than what, and what to do.
    """
    try:
        if larger and path.stat().st_size > most:
            raise UserError(f"{path} is larger than {larger}")
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def undeclared_text(content: bytes) -> str | None:
    """Bytes whose encoding nobody declares, such as EXIF's: UTF-8, or Western Latin where they read like it."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    foreign = [c for c in text if ord(c) > 127]
    # Other code pages show as odd signs, or as runs of accented letters.
    if not WESTERN.issuperset(foreign) or re.search(r"[À-ÿ]{3}", text):
        return None
    return text if 2 * sum(map(str.isalpha, foreign)) < sum(map(str.isalpha, text)) else None


def one_line(text: str) -> str:
    """White space collapsed, halves of surrogate pairs joined, cut where no tokenizer reads any more.

    A UserError where it holds half a character, as bytes that are not UTF-8 do on the command line.
    """
    try:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the text {text[:60]!a} holds half a character; type it in a terminal that is set to UTF-8"
        ) from error
    return " ".join(text[: 8 * MAX_PROMPT_CHARACTERS].split())[:MAX_PROMPT_CHARACTERS]


def on_disk(path: Path | str) -> Path:
    """The path as the file system spells it: ``~`` expanded, accents composed or decomposed as they are there.

    A path that names nothing comes back as it is, ``~`` aside.
    """
    path = Path(os.path.expanduser(path))
    if os.path.exists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        spellings = (part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD")))
        spelt = next((found / s for s in spellings if os.path.lexists(found / s)), None)
        if spelt is None:
            return path
        found = spelt
    return found


def inside(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, as the disk spells it; None where the name leads out of the folder.

    A link in the folder, or a linked folder below it, is the owner's and is followed.
    """
    if "\\" in name and not os.path.lexists(folder / name):
        name = name.replace("\\", "/")  # written on Windows
    top = os.path.abspath(folder)
    if "\0" not in name and not re.match(r"[A-Za-z]:/", name):
        target = os.path.normpath(os.path.join(top, name))  # ".." resolved in the name, before any link
        for base in (top, os.path.realpath(top)):
            if target.startswith(os.path.join(base, "")):
                return on_disk(folder / os.path.relpath(target, base))
    return None
