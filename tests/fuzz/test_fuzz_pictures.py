"""Pictures, masks and their descriptions that nobody vouches for."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from nulltext.blending import read_mask
from nulltext.errors import UserError
from nulltext.pictures import open_bounded, read_picture
from nulltext.prompts import Row, one_line, read_metadata

sys.path.insert(0, str(Path(__file__).parent))
from forms import either_works_or_says_why, forms, mangled, nested

MAX_PIXELS = 1_000_000
ROOM = Path(tempfile.mkdtemp(prefix="nulltext_fuzz_"))


@pytest.fixture(scope="module", autouse=True)
def room() -> object:
    yield
    for path in ROOM.iterdir():
        path.unlink()
    ROOM.rmdir()


def _originals() -> list[bytes]:
    """A small picture in every format that is read, with EXIF, text, a profile and a palette among them."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a sheep", 6
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Description", "a sheep", zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds: list[tuple[Image.Image, dict[str, object]]] = [
        (image, {"format": "PNG", "pnginfo": text, "exif": exif}),
        (image.convert("P"), {"format": "PNG", "transparency": 0}),
        (Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), {"format": "PNG"}),
        (image, {"format": "JPEG", "exif": exif, "icc_profile": profile}),
        (image, {"format": "JPEG", "progressive": True}),
        (image.convert("CMYK"), {"format": "TIFF", "compression": "tiff_lzw"}),
        (image.convert("F"), {"format": "TIFF"}),
        (image, {"format": "GIF"}),
        (image, {"format": "BMP"}),
        (image, {"format": "PPM"}),
        (image, {"format": "WEBP", "exif": exif}),
    ]
    found = []
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
    picture = either_works_or_says_why(
        lambda: read_picture(
            path, prompt=None, size=32, multiple=2, max_pixels=MAX_PIXELS, row=Row(prompt="x")
        )
    )
    if picture is not None:
        assert picture.pixels.shape == (3, 32, 32) and picture.pixels.isfinite().all()
        assert picture.pixels.abs().max() <= 1


def _a_mask(content: bytes) -> None:
    path = ROOM / "mask.png"
    path.write_bytes(content)
    either_works_or_says_why(lambda: read_mask(path, (24, 20), (12, 10)))


def _a_table(rows: list[object], columns: list[str], jsonl: bool) -> None:
    import csv
    import json

    path = ROOM / ("metadata.jsonl" if jsonl else "metadata.csv")
    with path.open("w", encoding="utf-8", errors="ignore", newline="") as file:
        if jsonl:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            csv.writer(file).writerows([["file_name", *columns], *([str(row)] for row in rows)])
    found = either_works_or_says_why(lambda: read_metadata(path))
    for row in found[0] if found else []:
        for place in (row.path, row.mask_path):
            assert place is None or place.resolve().is_relative_to(ROOM.resolve())
        for text in (row.prompt, row.target_prompt, row.blend_word):
            assert text is None or isinstance(text, str)


def _a_prompt(text: str) -> None:
    line = one_line(text)
    assert len(line) <= 10_000 and "\n" not in line
    line.encode("utf-8")


_row = st.dictionaries(
    st.sampled_from(["file_name", "prompt", "text", "target_prompt", "blend_word", "mask_file_name"]), nested
)
test_pictures, test_many_pictures = forms(
    _a_picture, 120, 3500, content=mangled(st.sampled_from(_originals()))
)
test_masks, test_many_masks = forms(_a_mask, 30, 500, content=mangled(st.sampled_from(_originals())))
test_tables, test_many_tables = forms(
    _a_table,
    40,
    1000,
    rows=st.lists(_row | nested, max_size=5),
    columns=st.lists(st.text(max_size=8), max_size=3),
    jsonl=st.booleans(),
)
test_prompts, test_many_prompts = forms(
    _a_prompt, 50, 1000, text=st.text(alphabet=st.characters(exclude_categories=()), max_size=200)
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
