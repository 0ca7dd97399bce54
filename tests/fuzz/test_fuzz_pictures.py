"""Pictures, masks and their descriptions that nobody vouches for."""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from nulltext.data.colour import upright
from nulltext.data.decode import decode, open_bounded
from nulltext.data.frame import Frame, Placement
from nulltext.data.masks import read_mask
from nulltext.data.metadata import Row, read_metadata
from nulltext.data.picture import read_picture
from nulltext.data.prompts import plain_words, weights_note
from nulltext.data.prompts.embedded import described
from nulltext.data.prompts.stamps import is_stamp
from nulltext.data.text import decode_text, one_line, undeclared_text
from nulltext.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from forms import either_works_or_says_why, forms, mangled, nested
from profiles import ADOBE, cmyk, gray

MAX_PIXELS = 1_000_000
ROOM = Path(tempfile.mkdtemp(prefix="nulltext_fuzz_"))
TURNED = Frame("4,2,20,18", 32, 2).place(24, 20, orientation=6)


@pytest.fixture(scope="module", autouse=True)
def room() -> object:
    yield
    for path in ROOM.iterdir():
        path.unlink()
    ROOM.rmdir()


def _originals() -> list[bytes]:
    """A small picture in every format that is read, with EXIF, text, profiles and a palette among them."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x9C9B] = "a sheep", 6, "ein Schaf".encode("utf-16-le")
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cow\nSteps: 2".encode("utf-16-be")
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", "a sheep", zip=True)
    graph = {
        "3": {"class_type": "K", "inputs": {"positive": ["6", 0]}},
        "6": {"class_type": "T", "inputs": {}},
    }
    text.add_text("prompt", json.dumps(graph))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds: list[tuple[Image.Image, dict[str, object]]] = [
        (image, {"format": "PNG", "pnginfo": text, "exif": exif}),
        (image, {"format": "PNG", "icc_profile": ADOBE}),
        (image.convert("P"), {"format": "PNG", "transparency": 0}),
        (image.convert("LA"), {"format": "PNG", "icc_profile": gray(1.8)}),
        (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {"format": "PNG"}),
        (image, {"format": "JPEG", "exif": exif, "icc_profile": profile}),
        (image, {"format": "JPEG", "progressive": True}),
        (image, {"format": "MPO", "save_all": True, "append_images": [image]}),
        (image.convert("CMYK"), {"format": "JPEG", "icc_profile": cmyk()}),
        (image.convert("CMYK"), {"format": "TIFF", "compression": "tiff_lzw"}),
        (image.convert("F"), {"format": "TIFF"}),
        (Image.merge("LAB", image.split()), {"format": "TIFF"}),
        (image, {"format": "GIF"}),
        (image, {"format": "BMP"}),
        (image, {"format": "PPM"}),
        (image, {"format": "WEBP", "exif": exif}),
    ]
    found = [(Path(__file__).parents[1] / "data" / "cases" / "IMG_0001.heic").read_bytes()]
    for picture, options in kinds:
        stream = io.BytesIO()
        try:
            picture.save(stream, **options)
        except (KeyError, OSError):  # a Pillow built without that format
            continue
        found.append(stream.getvalue())
    return found


def _a_picture(content: bytes) -> None:
    path = ROOM / "picture.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a person would see Pillow's warnings of a damaged file
        picture = either_works_or_says_why(
            lambda: read_picture(path, Frame("center", 32, 2), max_pixels=MAX_PIXELS, row=Row(path, "x"))
        )
    if picture is not None:
        assert picture.pixels.shape == (3, 32, 32) and picture.pixels.isfinite().all()
        assert picture.pixels.abs().max() <= 1
        image, _ = decode(path, MAX_PIXELS)
        prompt, _ = described(image)
        assert prompt is None or one_line(prompt.text).encode("utf-8")


def _a_trailer(photo: bytes, trailer: bytes) -> None:
    """What follows a JPEG changes nothing of it."""
    image = either_works_or_says_why(lambda: open_bounded(photo + trailer, MAX_PIXELS))
    assert np.array_equal(np.asarray(image), np.asarray(open_bounded(photo, MAX_PIXELS)))


def _a_profile(profile: bytes, mode: str) -> None:
    """A profile, however broken, changes colours at most."""
    image = Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(16, 16)).convert(mode)
    image.info["icc_profile"] = profile
    result = either_works_or_says_why(lambda: upright(image))
    assert result is not None and result.mode == "RGB" and result.size == (16, 16)


def _a_mask(content: bytes, placement: Placement | None) -> None:
    path = ROOM / "mask.png"
    path.write_bytes(content)
    size = placement.size if placement else (24, 20)
    mask = either_works_or_says_why(lambda: read_mask(path, placement, size))
    if mask is not None:
        assert mask.shape == size and mask.isfinite().all()
        assert mask.min() >= 0 and 0 < mask.max() <= 1


def _a_placement(given: object) -> None:
    if isinstance(given, dict):
        placement = either_works_or_says_why(lambda: Placement.from_dict(given))
        assert placement is None or Placement.from_dict(placement.to_dict()) == placement


def _a_table(rows: list[object], columns: list[str], sign: str | None, encoding: str) -> None:
    path = ROOM / ("metadata.csv" if sign else "metadata.jsonl")
    stream = io.StringIO(newline="")
    if sign is None:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        csv.writer(stream, delimiter=sign).writerows([["file_name", *columns], *([str(row)] for row in rows)])
    path.write_bytes(stream.getvalue().encode(encoding, errors="replace"))
    found = either_works_or_says_why(lambda: read_metadata(path))
    for row in found[0] if found else []:
        for place in (row.path, row.mask_path, row.target_path):
            assert place is None or place.resolve().is_relative_to(ROOM.resolve())
        for text in (row.prompt, row.target_prompt, row.blend_word):
            assert text is None or isinstance(text, str)


def _a_prompt(text: str) -> None:
    line = either_works_or_says_why(lambda: one_line(text))
    if line is not None:
        assert len(line) <= 10_000 and "\n" not in line
        line.encode("utf-8")
    assert isinstance(is_stamp(text), bool)
    assert isinstance(plain_words(text), str)
    note = weights_note(text)
    assert note is None or "read letter by letter" in note


def _an_encoding(text: str, encoding: str, mark: bool) -> None:
    """A text is read as it was meant or refused; never otherwise, where its encoding can be known."""
    marks = {"utf-8": "utf-8-sig", "utf-16-le": "utf-16", "utf-32-le": "utf-32"}
    content = text.encode(marks.get(encoding, encoding) if mark else encoding, errors="replace")
    read = either_works_or_says_why(lambda: decode_text(content, "caption.txt"))
    if encoding == "utf-8" or (mark and encoding in marks):
        assert read == text or "\0" in text or text.startswith("\ufeff")
    undeclared_text(content)


_row = st.dictionaries(
    st.sampled_from(
        ["file_name", "prompt", "text", "target_prompt", "blend_word", "mask_file_name", "target_file_name"]
    ),
    nested,
)
_characters = st.characters(exclude_categories=())
_jpegs = [content for content in _originals() if content.startswith(b"\xff\xd8")]
_marked = st.sampled_from(
    [b"\xff\xda", b"\xff\xd8", b"\xff\xd9", b"\xff", b"\0\0\0\x18ftypmp42", b"\xff\xc0\xff"]
)
_trailers = st.lists(st.binary(max_size=50) | _marked, max_size=30).map(lambda parts: b"".join(parts) * 50)
test_pictures, test_many_pictures = forms(
    _a_picture, 120, 3500, content=mangled(st.sampled_from(_originals()))
)
test_trailers, test_many_trailers = forms(
    _a_trailer, 40, 1000, photo=st.sampled_from(_jpegs), trailer=_trailers
)
test_profiles, test_many_profiles = forms(
    _a_profile,
    60,
    2000,
    profile=mangled(st.sampled_from([ADOBE, gray(1.0), cmyk()])) | st.binary(max_size=200),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"]),
)
test_masks, test_many_masks = forms(
    _a_mask,
    50,
    1000,
    content=mangled(st.sampled_from(_originals())),
    placement=st.sampled_from([None, TURNED]),
)
test_placements, test_many_placements = forms(
    _a_placement,
    40,
    1000,
    given=nested
    | st.fixed_dictionaries(
        {
            "original": nested | st.just([20, 24]),
            "orientation": nested | st.integers(0, 9),
            "box": nested | st.lists(st.floats(), min_size=4, max_size=4),
            "size": nested | st.just([32, 32]),
        }
    ),
)
test_tables, test_many_tables = forms(
    _a_table,
    40,
    1000,
    rows=st.lists(_row | nested, max_size=5),
    columns=st.lists(st.text(max_size=8), max_size=3),
    sign=st.sampled_from([None, ",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le", "cp932"]),
)
test_prompts, test_many_prompts = forms(
    _a_prompt,
    50,
    1000,
    text=st.text(alphabet=_characters | st.sampled_from("()[]{}|:<>+-. 13ab"), max_size=200),
)
test_encodings, test_many_encodings = forms(
    _an_encoding,
    50,
    1000,
    text=st.text(max_size=60),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-32-le", "latin-1", "cp932", "cp1251", "utf-16-be"]),
    mark=st.booleans(),
)


def test_a_picture_that_would_be_decoded_for_minutes_is_refused() -> None:
    """A progressive JPEG of a few kilobytes whose scans are repeated thousands of times."""
    stream = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    scan = content.rindex(b"\xff\xda")
    with pytest.raises(UserError, match="so many scans"):
        open_bounded(content[:-2] + content[scan:-2] * 5000 + b"\xff\xd9")


def test_a_picture_that_another_program_would_be_called_for_is_none() -> None:
    with pytest.raises(UserError, match="not a picture"):
        open_bounded(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(x) show\n")
