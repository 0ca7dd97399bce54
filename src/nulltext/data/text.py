"""Text and file names as people save them: encodings told apart, accents in either form, ``~`` expanded."""

import codecs
import os
import re
import unicodedata
from pathlib import Path

from nulltext.errors import UserError

MAX_PROMPT_CHARACTERS = 10_000
"""More than any tokenizer reads."""

# The longer mark first: UTF-32's begins like UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WESTERN = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœ\u2018\u2019\u201c\u201d«»\u2013—…°·€©®¡¿"
)
"""What Western Latin writes beyond ASCII."""


def decode_text(content: bytes, name: str, whole: bool = True) -> str:
    """The text of a file: its byte order mark decides, else it is UTF-8.

    Args:
        content: The file's bytes.
        name: Names the file in the error.
        whole: False where the file was cut off, perhaps inside its last character.

    Raises:
        UserError: It is in neither; guessing a code page would invent words.
    """
    mark, encoding = next((pair for pair in MARKS if content.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content[len(mark) :], final=whole)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            f"{name} is not UTF-8 text, nor marked as UTF-16; save it as UTF-8 "
            f"(in Notepad: Save as, Encoding: UTF-8)"
        )
    return text


def undeclared_text(content: bytes) -> str | None:
    """Bytes whose encoding nobody declares, such as EXIF's: UTF-8, or Western Latin where they read like it."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return None
    foreign = [c for c in text if ord(c) > 127]
    letters = [c for c in text if c.isalpha()]
    # Other code pages show as odd signs, or as runs of accented letters.
    if not WESTERN.issuperset(foreign) or re.search(r"[À-ÿ]{3}", text):
        return None
    return text if 2 * sum(c.isalpha() for c in foreign) < len(letters) else None


def one_line(text: str) -> str:
    """White space collapsed, halves of surrogate pairs joined, cut where no tokenizer reads any more.

    Raises:
        UserError: It holds half a character, as bytes that are not UTF-8 do on the command line.
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
    for part in path.parts[1:] if path.anchor else path.parts:
        spellings = dict.fromkeys((part, *(unicodedata.normalize(form, part) for form in ("NFC", "NFD"))))
        spelt = next((found / s for s in spellings if os.path.lexists(found / s)), None)
        if spelt is None:
            return path
        found = spelt
    return found
