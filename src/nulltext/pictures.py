"""A picture as the method sees it, read from a file of any mode and brought to the model's size."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nulltext.errors import UserError
from nulltext.prompts import Row, find_prompt

MAX_PIXELS = 100_000_000
"""Default bound on width x height, checked before decoding: 100 megapixels, about 300 MB once decoded."""

START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 12
"""Passes of a progressive JPEG over the largest picture that is admitted; writers use about ten. A file of a few
kilobytes may ask for thousands."""

MIN_SIDE = 16
"""Fewest pixels on a side that are worth inverting: below, latents of a factor-8 VAE are a single point."""

# What Pillow may open. Left out on purpose: EPS (runs Ghostscript), and formats that are no photographs.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(".png .jpg .jpeg .jpe .mpo .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .jp2 .avif".split())


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, its words, and where both came from."""

    pixels: Tensor
    """(3, H, W) fp32 in [-1, 1], RGB."""
    prompt: str
    """What the picture shows; may be empty."""
    name: str
    """Names the folder of its results; unique among the pictures of a run."""
    path: Path | None = None
    """The file it was read from."""
    sha256: str = ""
    """Hex digest of that file's bytes."""
    size: tuple[int, int] = (0, 0)
    """(H, W) of ``pixels``."""
    crop: str = "center"
    """The rule that cut it out: ``center``, ``none``, or ``left,top,right,bottom`` in original pixels."""
    original_size: tuple[int, int] = (0, 0)
    """(H, W) in the file, after its EXIF rotation."""
    target_prompt: str | None = None
    """The edit that a metadata file asks for."""
    blend_word: str | None = None
    """The word or words that the edit is about."""
    mask_path: Path | None = None
    """A picture of where the edit may change something: white there, black elsewhere."""


@dataclass(frozen=True)
class Frame:
    """How a picture is cut and resized.

    Args:
        crop: ``center`` cuts the largest piece of the target's shape from the middle; ``none`` keeps the
            whole picture; ``left,top,right,bottom`` cuts that box, in pixels after EXIF rotation.
        size: Side in pixels, or ``(height, width)``. With a side, ``center`` gives a square; ``none`` and a
            box keep their shape, at about side x side pixels in all. With both numbers, the piece is resized
            to exactly those.
        multiple: Each side of the result is a multiple of it: the VAE's factor.
    """

    crop: str
    size: int | tuple[int, int]
    multiple: int

    def __post_init__(self) -> None:
        """Refuses what cannot work for any picture.

        Raises:
            UserError: The crop rule is none of the three, or the size is no multiple.
        """
        parse_crop(self.crop)
        for side in (self.size,) if isinstance(self.size, int) else self.size:
            if side < MIN_SIDE or side % self.multiple:
                near = max(
                    round(side / self.multiple) * self.multiple, -(-MIN_SIDE // self.multiple) * self.multiple
                )
                raise UserError(
                    f"size {side} does not suit the model, whose latents stand for {self.multiple} x "
                    f"{self.multiple} pixels each; the nearest that does is --data.size {near}"
                )

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The piece to keep of a picture of that size: left, top, right, bottom in pixels.

        Raises:
            UserError: The box lies outside the picture or is smaller than 16 pixels on a side.
        """
        box = parse_crop(self.crop)
        if box is not None:
            left, top, right, bottom = box
            if right > width or bottom > height:
                raise UserError(
                    f"crop {self.crop} leaves the picture, which is {width} pixels wide and {height} high; "
                    f"right must be at most {width} and bottom at most {height}"
                )
            return float(left), float(top), float(right), float(bottom)
        if self.crop == "none":
            return 0.0, 0.0, float(width), float(height)
        rows, columns = (1, 1) if isinstance(self.size, int) else self.size
        scale = min(width / columns, height / rows)
        cut_w, cut_h = columns * scale, rows * scale
        x, y = (width - cut_w) / 2, (height - cut_h) / 2
        return x, y, x + cut_w, y + cut_h

    def target(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) of the result for a picture of that size.

        Raises:
            UserError: As ``box``; or the picture is so narrow that its short side would vanish.
        """
        left, top, right, bottom = self.box(width, height)
        if not isinstance(self.size, int):
            return self.size
        if self.crop == "center":
            return self.size, self.size
        scale = self.size / ((right - left) * (bottom - top)) ** 0.5
        rows, columns = (max(1, round(x * scale / self.multiple)) for x in (bottom - top, right - left))
        if min(rows, columns) * self.multiple < MIN_SIDE:
            raise UserError(
                f"{right - left:.0f} x {bottom - top:.0f} pixels are too narrow to keep their shape at size "
                f"{self.size}; use --data.crop center, or a box"
            )
        return rows * self.multiple, columns * self.multiple


def parse_crop(crop: str) -> tuple[int, int, int, int] | None:
    """The box of a crop rule, or None for ``center`` and ``none``.

    Raises:
        UserError: It is none of the three.
    """
    if crop in ("center", "none"):
        return None
    numbers = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", crop)
    if numbers is None:
        raise UserError(
            f"crop {crop!r} is no rule; use center, none, or left,top,right,bottom such as 0,0,512,512"
        )
    left, top, right, bottom = (int(n) for n in numbers.groups())
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        raise UserError(
            f"crop {crop} holds no picture: right must be at least left + {MIN_SIDE}, "
            f"bottom at least top + {MIN_SIDE}"
        )
    return left, top, right, bottom


def read_picture(
    path: Path | str,
    *,
    prompt: str | None = None,
    crop: str = "center",
    size: int | tuple[int, int] = 512,
    multiple: int = 8,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    row: Row | None = None,
) -> Picture:
    """Reads one picture, in any mode, with its prompt.

    Args:
        path: The file.
        prompt: What it shows. None: its row, the text file beside it, or its own description.
        crop: ``center``, ``none`` or ``left,top,right,bottom``; see ``Frame``.
        size: Side, or (height, width), in pixels.
        multiple: The VAE's factor, of which both sides are multiples.
        max_pixels: Bound on width x height, checked before decoding.
        name: Names the results; the file's stem by default.
        row: The picture's row of a metadata file.

    Raises:
        UserError: No such picture, it cannot be decoded, is too large or too small, or has no prompt.
    """
    path = Path(path)
    frame = Frame(crop, size, multiple)
    image, sha256 = decode(path, max_pixels)
    found = find_prompt(path, image, prompt, row)
    if found is None:
        raise UserError(no_prompt(path))
    picture = upright(image)
    with naming(path):
        box, (height, width) = frame.box(*picture.size), frame.target(*picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    row = row or Row()
    return Picture(
        pixels=to_pixels(resized),
        prompt=found,
        name=name or path.stem,
        path=path,
        sha256=sha256,
        size=(height, width),
        crop=crop,
        original_size=(picture.height, picture.width),
        target_prompt=row.target_prompt,
        blend_word=row.blend_word,
        mask_path=row.mask_path,
    )


def no_prompt(path: Path) -> str:
    """The error that says the five ways to a prompt."""
    return (
        f"no prompt for {path}: give --data.prompt 'a photo of ...', or a row in metadata.jsonl (file_name, "
        f"prompt), or a text file {path.stem}.txt beside it, or a description inside the picture (EXIF "
        f"ImageDescription, PNG text), or a captioner: --data.captioner Salesforce/blip-image-captioning-base"
    )


def decode(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    """The decoded image in its own mode, and the sha256 of its file.

    Raises:
        UserError: No such file, not a picture, damaged, or more than ``max_pixels``.
    """
    content = _read_bytes(path, max_pixels)
    with naming(path):
        image = open_bounded(content, max_pixels)
        if min(image.size) < MIN_SIDE:
            width, height = image.size
            raise UserError(f"has {width} x {height} pixels; at least {MIN_SIDE} on each side are needed")
    return image, hashlib.sha256(content).hexdigest()


def open_bounded(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes a picture that nobody vouches for; only the formats above, and no more than ``max_pixels``.

    Raises:
        UserError: Not a picture, damaged, or too large. The message does not name the file.
    """
    with _bounded(max_pixels):
        image = _header(content)
        width, height = image.size
        if width * height > max_pixels:
            raise UserError(
                f"has {width} x {height} pixels, more than --data.max_pixels {max_pixels}; raise that bound "
                f"or shrink the picture"
            )
        if image.format == "JPEG" and content.count(START_OF_SCAN) * width * height > MAX_SCANS * max_pixels:
            raise UserError("is a JPEG of so many scans that decoding would not end; save it again")
        try:
            image.load()
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
            raise UserError(
                f"is damaged and cannot be decoded ({_brief(error)}); give a whole copy"
            ) from error
    return image


def upright(image: Image.Image) -> Image.Image:
    """RGB, rotated as EXIF says, transparency laid on white, 16 bits brought to 8."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block raises many kinds; the picture itself is fine
        image = image.copy()
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) fp32 in [-1, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1.0  # (H, W, 3)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """The inverse of ``to_pixels``, clamped and rounded to 8 bits."""
    array = ((pixels.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).numpy())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before the reason, so that the reason need not know it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error.__cause__


def _read_bytes(path: Path, max_pixels: int) -> bytes:
    """The file, read once, so that what is decoded is what was hashed."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a picture")
    if not path.is_file():
        raise UserError(f"no such picture: {path}" if not path.exists() else f"{path} is no regular file")
    try:
        if path.stat().st_size > 8 * max_pixels + 1_000_000:  # 16 bits, four channels, and a header
            raise UserError(f"{path} is larger than {max_pixels} pixels could need; see --data.max_pixels")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def _header(content: bytes) -> Image.Image:
    Image.init()
    try:
        return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise UserError("has too many pixels; see --data.max_pixels") from error
    except Exception as error:  # a hostile header raises more than UnidentifiedImageError
        raise UserError("is not a picture that can be read; PNG, JPEG, WebP, TIFF, BMP, GIF can") from error


@contextmanager
def _bounded(max_pixels: int) -> Iterator[None]:
    """Pillow's own bound set to ours for a while; its warnings would only repeat our errors."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16- and 32-bit gray and float pictures as 8-bit gray.

    Integers beyond 255 are read as 16-bit; floats up to 1 as fractions of white.
    """
    values = np.array(image, dtype=np.float32)  # 8 bits are wanted of its 24, and a large picture has to fit
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16"):
        white = 65535.0
    elif image.mode == "F":
        white = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else top
    else:
        white = 255.0 if top <= 255.0 else 65535.0 if top <= 65535.0 else top
    np.clip(values, 0, white, out=values)
    values *= 255.0 / white
    gray = Image.fromarray(values.round(out=values).astype(np.uint8))
    gray.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return gray


def _brief(error: Exception) -> str:
    """The first line of an exception, short enough for one line of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:100] if lines else type(error).__name__
