"""Decodes pictures that nobody vouches for: few formats, bounded sizes, one line where it cannot be."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from nulltext.data.text import on_disk, read_bytes
from nulltext.errors import UserError

MAX_PIXELS = 100_000_000  # default bound on width x height: about 300 MB once decoded
MIN_SIDE = 16  # pixels; below, the latents of a factor-8 VAE are a single point
MAX_SCANS = 12  # passes of a progressive JPEG over the largest picture; a small file may ask for thousands

# What Pillow may open. Left out on purpose: EPS (runs Ghostscript), and formats that are no photographs.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF")
SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm "
    ".pnm .jp2 .j2k .jpx .jpf .avif .heic .heif .hif".split()
)
UNREAD = frozenset(  # pictures that cannot be read: in a folder they are named, so that none vanishes
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .jxl .psd .psb .xcf .tga "
    ".exr .hdr .svg .eps .ico .heics .avifs .jxr .pcx".split()
)
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a JPEG: no stuffed byte, no padding, no restart
HEIF_BRAND = re.compile(rb".{4}ftyp.{0,48}?(hei[cxms]|hev[cxms])", re.DOTALL)
RAW = "a camera's raw file; export it as JPEG"
OTHERS = (
    (rb"II\*\0\x10\0\0\0CR|.{4}ftypcrx |FUJIFILMCCD|IIU\0|IIRO|FOVb", RAW),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL; save it as JPEG or PNG"),
    (rb"8BPS|gimp xcf", "an image editor's project; export it as PNG"),
    (rb"%PDF|%!PS", "a page to print; save it as PNG"),
    (rb"\s*(<\?xml|<svg)", "drawn in vectors; export it as PNG"),
    (rb"(?i:\s*<(!doctype )?html)", "a web page saved under a picture's name; download the picture itself"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file with git lfs pull"),
    (rb".{4}ftyp|\x1aE\xdf\xa3", "a video; save one frame of it"),
)


def decode(source: Path | str | bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The decoded image in its own mode, and the sha256 of its file.

    Raises:
        UserError: No such file, not a picture, damaged, or more than ``max_pixels``.
    """
    content = source if isinstance(source, bytes) else _read_bytes(on_disk(source), max_pixels)
    with naming("a stored picture" if isinstance(source, bytes) else source):
        image = open_bounded(content, max_pixels)
        if min(image.size) < MIN_SIDE:
            width, height = image.size
            raise UserError(f"has {width} x {height} pixels; at least {MIN_SIDE} on each side are needed")
    return image, hashlib.sha256(content).hexdigest()


@contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """Puts the file's name before the reason, so that the reason need not know it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error.__cause__


def open_bounded(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture in one of the formats above; errors as of ``decode``, without the file's name."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings(action="ignore"):  # nobody can act on them
            image = _header(content)
            width, height = image.size
            if width * height > max_pixels:
                raise UserError(
                    f"has {width} x {height} pixels, more than --data.max_pixels {max_pixels}; raise that bound "
                    f"or shrink the picture"
                )
            most = MAX_SCANS * max_pixels // max(1, width * height)
            if image.format in ("JPEG", "MPO") and jpeg_scans(content, most) > most:
                raise UserError("is a JPEG of so many scans that decoding would not end; save it again")
            image.load()
            return image
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        why = str(error).strip().partition("\n")[0][:100] or type(error).__name__
        raise UserError(f"is damaged and cannot be decoded ({why}); give a whole copy") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _header(content: bytes) -> Image.Image:
    """The picture before its pixels are decoded."""
    Image.init()
    if HEIF_BRAND.match(content) and b"avif" not in content[:64] and not _heif():
        raise UserError(
            "is HEIC, as phones save photos, which needs the package pillow-heif: pip install pillow-heif, "
            "or save the photo as JPEG"
        )
    none = "is not a picture that can be read"
    try:
        image = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise UserError("has too many pixels; see --data.max_pixels") from error
    except Exception as error:  # a hostile header raises more than UnidentifiedImageError
        if not content:
            raise UserError("is empty, not a picture; fetch it again") from error
        other = next((what for magic, what in OTHERS if re.match(magic, content, re.DOTALL)), None)
        can = f", but {other}" if other else "; PNG, JPEG, WebP, TIFF, BMP, GIF can"
        raise UserError(none + can) from error
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    reduced = tags.get(254)  # the first page is a small copy of another, as in NEF
    if 50706 in tags or (isinstance(reduced, int) and reduced & 1):  # DNG has its version there
        raise UserError(f"{none}, but {RAW}")
    return image


def _heif() -> bool:
    """Whether HEIC can be read; makes it so where pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def jpeg_scans(content: bytes, most: int) -> int:
    """Scans of a JPEG up to its end-of-image marker; counting stops above ``most``.

    What follows the picture (a motion photo's video, a second view, any trailer) is not counted.
    """
    scans, place = 0, 2
    while scans <= most and (found := MARKER.search(content, place)):
        place, kind = found.end(), content[found.end() - 1]
        if kind == 0xD9:  # end of image
            break
        if kind in (0x01, 0xD8):  # without content
            continue
        scans += kind == 0xDA  # start of scan
        place += int.from_bytes(content[place : place + 2], "big")
    return scans


def _read_bytes(path: Path, max_pixels: int) -> bytes:
    """The file, read once, so that what is decoded is what was hashed."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder, not a picture")
    if not os.path.isfile(path):
        if os.path.exists(path):
            raise UserError(f"{path} is no regular file")
        if os.path.islink(path):
            raise UserError(f"{path} is a link to a file that is not there; fetch that file or drop the link")
        raise UserError(f"no such picture: {path}")
    most = 8 * max_pixels + 1_000_000  # 16 bits, four channels, and a header
    return read_bytes(path, most, f"{max_pixels} pixels could need; see --data.max_pixels")


def exif_value(image: Image.Image, tag: int, block: int | None = None) -> Any:
    """A tag's value in EXIF, or in one of its blocks; None where there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            exif = image.getexif()
            return (exif.get_ifd(block) if block else exif).get(tag)
    except Exception:  # a damaged block raises many kinds; the picture itself is fine
        return None
