"""Which piece of a picture is taken, at which size, and where each of its pixels came from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from nulltext.data.decode import MIN_SIDE
from nulltext.errors import UserError

SHRUNK = 10.0  # to one on each side, above which a note says that small things vanish


@dataclass(frozen=True)
class Placement:
    """How a photo's pixels map to the model's: turn upright, cut the box, resize."""

    original: tuple[int, int]  # (H, W) of the photo, upright
    orientation: int  # the EXIF turn from the file to upright, 1 to 8
    box: tuple[float, float, float, float]  # left, top, right, bottom of the piece, in upright pixels
    size: tuple[int, int]  # (H, W) of the piece in the model's pixels

    def apply(self, image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
        """The piece of an upright image, at the model's size; a scaled copy of the photo is cut alike."""
        across, down = image.width / self.original[1], image.height / self.original[0]
        left, top, right, bottom = self.box
        right, bottom = min(right * across, image.width), min(bottom * down, image.height)
        return image.resize(self.size[::-1], resample, box=(left * across, top * down, right, bottom))

    def over(self, piece: Image.Image) -> Image.Image:
        """A black photo with a piece in its place, at any scale: the inverse of ``apply``."""
        left, top, right, bottom = map(round, self.box)
        photo = Image.new(piece.mode, self.original[::-1])
        photo.paste(piece.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        return photo

    def note(self) -> str | None:
        """What to say where the photo shrinks so much that small things vanish."""
        (height, width), (rows, columns) = self.original, self.size
        left, top, right, bottom = self.box
        times = max((right - left) / columns, (bottom - top) / rows)
        if times <= SHRUNK:
            return None
        return (
            f"{width} x {height} pixels become {columns} x {rows}, {times:.0f} to one on each side, so small things "
            f"vanish; cut out what matters with --data.crop left,top,right,bottom, or use a larger model or size"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for JSON."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Placement":
        """The inverse of ``to_dict``; a UserError where something is missing or no number."""
        try:
            (rows, columns), (height, width) = (map(int, given[key]) for key in ("original", "size"))
            left, top, right, bottom = map(float, given["box"])
            turn = int(given["orientation"])
            inside = 0 <= left < right <= columns and 0 <= top < bottom <= rows
            if not (inside and min(height, width) > 0 and 1 <= turn <= 8):
                raise ValueError("its box leaves the picture")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"placement {str(given)[:80]!r} is damaged ({error}); invert again") from error
        return cls((rows, columns), turn, (left, top, right, bottom), (height, width))


@dataclass(frozen=True)
class Frame:
    """How a picture is cut and resized.

    Args:
        crop: ``center`` cuts the largest piece of the target's shape from the middle; ``none`` uses the
            whole picture; ``left,top,right,bottom`` cuts that box, in pixels after EXIF rotation.
        size: ``(height, width)``, or a side: ``center`` gives a square of it; ``none`` and a box keep their
            shape, at about side x side pixels in all.
        multiple: Each side of the result is a multiple of it: the VAE's factor.

    Raises:
        UserError: The crop rule is none of the three, or the size is no multiple.
    """

    crop: str = "center"
    size: int | tuple[int, int] = 512
    multiple: int = 8

    def __post_init__(self) -> None:
        parse_crop(self.crop)
        for side in (self.size,) if isinstance(self.size, int) else self.size:
            if side < MIN_SIDE or side % self.multiple:
                smallest = -(-MIN_SIDE // self.multiple)
                near = max(round(side / self.multiple), smallest) * self.multiple
                raise UserError(
                    f"size {side} does not suit the model, whose latents stand for {self.multiple} x "
                    f"{self.multiple} pixels each; the nearest that does is --data.size {near}"
                )

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The piece to take of a picture of that size: left, top, right, bottom in pixels."""
        if box := parse_crop(self.crop):
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
            UserError: The box lies outside the picture, or its short side would vanish.
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

    def place(self, width: int, height: int, orientation: int = 1) -> Placement:
        """Where the pixels of an upright picture of that size go; errors as of ``target``."""
        return Placement((height, width), orientation, self.box(width, height), self.target(width, height))


def parse_crop(crop: str) -> tuple[int, int, int, int] | None:
    """The box of a crop rule, or None for ``center`` and ``none``; a UserError where it is none of the three."""
    if crop in ("center", "none"):
        return None
    if not re.fullmatch(r"\s*\d{1,6}\s*(,\s*\d{1,6}\s*){3}", crop):
        raise UserError(
            f"crop {crop!r} is no rule; use center, none, or left,top,right,bottom such as 0,0,512,512"
        )
    left, top, right, bottom = map(int, crop.split(","))
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        least = f"right must be at least left + {MIN_SIDE}, bottom at least top + {MIN_SIDE}"
        raise UserError(f"crop {crop} holds no picture: {least}")
    return left, top, right, bottom


def square(size: tuple[int, int], side: float, left: float, top: float) -> str:
    """The crop rule of a square in a picture of (width, height).

    ``side`` is in percent of the shorter side; ``left`` and ``top`` are in percent of how far it can move.
    """
    width, height = size
    long = max(MIN_SIDE, round(min(size) * side / 100))
    x, y = round((width - long) * left / 100), round((height - long) * top / 100)
    return f"{x},{y},{x + long},{y + long}"


def parse_size(size: int | str | Sequence[int] | None) -> int | tuple[int, int] | None:
    """A size as people write it: ``512``; ``32,48`` or ``[32, 48]`` (height, width); ``48x32`` (width x height)."""
    if size is None or (isinstance(size, int) and not isinstance(size, bool)):
        return size
    text = ",".join(map(str, size)) if isinstance(size, Sequence) and not isinstance(size, str) else str(size)
    found = re.fullmatch(r"[\[(]?\s*(\d{1,6})\s*(?:([,;xX*\u00d7\s])\s*(\d{1,6})\s*)?[\])]?", text.strip())
    if found is None:
        raise UserError(
            f"size {text!r:.60} is not understood; give a side such as 512, height,width such as 32,48, "
            f"or width x height such as 48x32"
        )
    first, sign, second = found.groups()
    if second is None:
        return int(first)
    return (int(second), int(first)) if sign in "xX*\u00d7" else (int(first), int(second))
