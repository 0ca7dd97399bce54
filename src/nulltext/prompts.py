"""The prompt of a picture: five ways to find one, and the metadata files of the imagefolder form."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from nulltext.errors import UserError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
MAX_METADATA_BYTES = 256 * 1024 * 1024
MAX_PROMPT_CHARACTERS = 10_000
IMAGE_DESCRIPTION = 0x010E  # EXIF tag
PNG_KEYS = ("Description", "Title", "Comment")


@dataclass(frozen=True)
class Row:
    """What a metadata file says about one picture."""

    path: Path | None = None
    prompt: str | None = None
    target_prompt: str | None = None
    blend_word: str | None = None
    mask_path: Path | None = None


def find_prompt(path: Path, image: Image.Image, prompt: str | None, row: Row | None) -> str | None:
    """The first of: the prompt given, the picture's row, the text beside it, its own description.

    Args:
        path: The picture's file.
        image: The opened picture.
        prompt: The user's own words; an empty string is a prompt too.
        row: The picture's row in a metadata file.

    Returns:
        The prompt in one line, or None where none of the four has one.

    Raises:
        UserError: A text file stands beside the picture but cannot be read.
    """
    if prompt is not None:
        return one_line(prompt)
    candidates = (row.prompt if row else None, _text_beside(path), described(image))
    return next((one_line(text) for text in candidates if text and text.strip()), None)


def one_line(text: str) -> str:
    """White space collapsed, cut where no tokenizer reads any more, without what is no character (lone surrogates)."""
    characters = text[: 8 * MAX_PROMPT_CHARACTERS].encode("utf-8", errors="ignore").decode("utf-8")
    return " ".join(characters.split())[:MAX_PROMPT_CHARACTERS]


def described(image: Image.Image) -> str | None:
    """The description a picture carries: EXIF ImageDescription, or PNG text.

    A camera's stamp ("OLYMPUS DIGITAL CAMERA", "SONY DSC") is all capitals and no description.
    """
    try:
        exif = image.getexif().get(IMAGE_DESCRIPTION)
    except Exception:  # a damaged EXIF block raises many kinds; the picture itself may be fine
        exif = None
    texts = [exif, *(image.info.get(key) for key in PNG_KEYS)]
    for text in map(_as_text, texts):
        if text and not text.isupper():
            return text
    return None


def _as_text(value: Any) -> str:
    """EXIF says ASCII; writers put UTF-8 there, which Pillow hands over as Latin-1."""
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            return str(value).replace("\0", " ").strip()
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\0", " ").strip()


def _text_beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    if not text.is_file():
        return None
    try:
        with text.open("rb") as file:
            return file.read(8 * MAX_PROMPT_CHARACTERS).decode("utf-8-sig", errors="ignore")
    except OSError as error:
        raise UserError(f"cannot read {text}: {error.strerror or error}; check its permissions") from error


class Captioner:
    """A BLIP model that says what a picture shows; loaded when the first picture needs it.

    Args:
        model: Hub id or folder of a ``BlipForConditionalGeneration``, such as
            Salesforce/blip-image-captioning-base.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._parts: tuple[Any, Any, Any] | None = None

    def __call__(self, image: Image.Image) -> str:
        """A caption for an RGB image.

        Raises:
            UserError: There is no such model, or it is no BLIP captioner.
        """
        self._parts = self._parts or self._load()
        network, tokenizer, processor = self._parts
        inputs = processor(images=image, return_tensors="pt")
        tokens = network.generate(pixel_values=inputs["pixel_values"], max_new_tokens=40)
        return one_line(tokenizer.decode(tokens[0], skip_special_tokens=True))

    def _load(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        try:
            network = BlipForConditionalGeneration.from_pretrained(self.model, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            processor = BlipImageProcessorPil.from_pretrained(self.model)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot load the captioner {self.model}: give the id or the folder of a BLIP captioning "
                f"model in safetensors form ({str(error).splitlines()[0][:120]})"
            ) from error
        return network.eval(), tokenizer, processor


def read_metadata(path: Path) -> tuple[list[Row], list[tuple[str, str]]]:
    """The rows of a ``metadata.jsonl`` or ``metadata.csv`` in the imagefolder form.

    Columns: ``file_name`` and ``prompt`` (or ``text``); optional ``target_prompt``, ``blend_word``,
    ``mask_file_name``. File names are relative to the metadata file's folder and may not leave it.

    Returns:
        The rows in their order, and what was wrong with others as (place, reason).

    Raises:
        UserError: The file cannot be read at all, or has no ``file_name``.
    """
    try:
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise UserError(f"{path} is larger than {MAX_METADATA_BYTES} bytes; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    rows, problems = [], []
    for number, record in _records(path, text):
        place = f"{path.name}:{number}"
        try:
            rows.append(_row(path.parent, record))
        except UserError as error:
            problems.append((place, str(error)))
    return rows, problems


def _records(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """(line number, record); a record that is no mapping is an exception's text, told apart by ``_row``."""
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text))
        if "file_name" not in (reader.fieldnames or []):
            raise UserError(f"{path} has no column file_name; its first line must name the columns")
        try:
            for record in reader:
                yield reader.line_num, record
        except csv.Error as error:
            yield reader.line_num, str(error)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, "no JSON object"


def _row(folder: Path, record: Any) -> Row:
    if not isinstance(record, dict):
        raise UserError('is no row; write {"file_name": "sheep.jpg", "prompt": "a photo of a sheep"}')
    return Row(
        path=_inside(folder, _text(record, "file_name"), "file_name"),
        prompt=_text(record, "prompt") or _text(record, "text"),
        target_prompt=_text(record, "target_prompt"),
        blend_word=_text(record, "blend_word"),
        mask_path=_inside(folder, mask, "mask_file_name")
        if (mask := _text(record, "mask_file_name"))
        else None,
    )


def _text(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise UserError(f"{key} must be text, not {type(value).__name__}")
    return value


def _inside(folder: Path, name: str | None, key: str) -> Path:
    """The file, if it lies in the folder once links and dots are resolved."""
    if name is None:
        raise UserError(f"has no {key}")
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a loop of links
        inside = False
    if not inside:
        raise UserError(
            f"{key} {name!r:.100} leaves the folder of the metadata file; only files below it are read"
        )
    return folder / name
