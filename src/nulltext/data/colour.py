"""An image of any mode as upright sRGB: turned as EXIF says, its colour profile applied, laid on white, 8 bits."""

import io
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from nulltext.data.decode import exif_value

# What brings a file's pixels upright, by its EXIF orientation from 2 on.
TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}  # ICC's colour spaces as Pillow calls them
CUBE = np.indices((8, 8, 8)).reshape(3, 64, 8).transpose(1, 2, 0) * 255 // 7  # 512 colours over all of RGB


def orientation(image: Image.Image) -> int:
    """How the camera was held, as EXIF counts it: 1 upright, 5 to 8 on its side; 1 where EXIF is damaged."""
    turn = exif_value(image, ExifTags.Base.Orientation)
    return turn if isinstance(turn, int) and 2 <= turn <= 8 else 1


def turned(image: Image.Image, turn: int) -> Image.Image:
    """The image rotated and mirrored as EXIF counts turns."""
    return image.transpose(Image.Transpose[TURNS[turn - 2]]) if turn > 1 else image


def upright(image: Image.Image) -> Image.Image:
    """RGB in sRGB, turned as EXIF says, transparency laid on white, 16 bits brought to 8."""
    profile = image.info.get("icc_profile")
    image = turned(image, orientation(image))
    if image.mode.startswith(("I", "F")):
        values = fractions(image)
        values *= 255
        image = Image.fromarray(values.round(out=values).astype(np.uint8))
    image, alpha = split_alpha(image)
    colours = to_srgb(image, profile)
    if alpha is None:
        return colours
    colours.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image without its transparency, and its alpha (mode L), or None where it has none."""
    if "A" not in image.mode and "a" not in image.mode and "transparency" not in image.info:
        return image, None
    gray = image.mode in ("1", "L", "LA", "La")
    image = image.convert("LA" if gray else "RGBA")
    return image.convert("L" if gray else "RGB"), image.getchannel("A")


def to_srgb(image: Image.Image, profile: bytes | None = None) -> Image.Image:
    """An image of 8 bits, without alpha, as RGB in sRGB.

    A profile that is damaged, or of another colour space than the image, is ignored, as browsers do.
    """
    if profile or image.mode == "LAB":
        with suppress(
            Exception
        ):  # lcms and Pillow raise many kinds for a damaged profile; the pixels are fine
            return _through_profile(image, profile)
    return (image.convert("L") if image.mode == "LAB" else image).convert("RGB")


def _through_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
    mode = MODES[source.profile.xcolor_space.strip()]
    if mode != image.mode and ({"CMYK", "LAB"} & {mode, image.mode} or (mode == "L" and image.mode != "1")):
        raise ValueError("a profile of another colour space")

    def converted(pixels: Image.Image) -> Any:
        srgb, flags = ImageCms.createProfile("sRGB"), ImageCms.Flags.BLACKPOINTCOMPENSATION
        way = ImageCms.Intent.RELATIVE_COLORIMETRIC
        return ImageCms.profileToProfile(pixels, source, srgb, way, "RGB", flags=flags)

    if mode in ("RGB", "L"):
        sample = Image.fromarray(CUBE.astype(np.uint8)).convert(mode)
        moved = np.asarray(converted(sample), dtype=int) - np.asarray(sample.convert("RGB"), dtype=int)
        if np.abs(moved).max() <= 2:
            return image.convert("RGB")  # sRGB under its own name: the pixels stay as they are to the bit
    return converted(image.convert(mode))


def fractions(image: Image.Image) -> np.ndarray:
    """A gray image of any depth as fp32 (H, W), 0 black and 1 white.

    Integers beyond 255 are read as 16-bit; floats up to 1 as fractions of white.
    """
    values = np.array(image, dtype=np.float32)  # changed in place: a large picture has to fit
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16"):
        white = 65535.0
    else:
        usual = (1.0, 255.0) if image.mode in ("1", "F") else (255.0, 65535.0)
        white = next((value for value in usual if top <= value), top)
    np.clip(values, 0, white, out=values)
    values /= white
    return values
