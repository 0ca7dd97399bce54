"""An image of any mode as upright sRGB: turned as EXIF says, its colour profile applied, laid on white, 8 bits."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from nulltext.data.decode import quiet

ORIENTATION = 0x0112  # EXIF tag
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's mode for each colour space of an ICC profile."""


@quiet()
def orientation(image: Image.Image) -> int:
    """How the camera was held, as EXIF counts it: 1 upright, 5 to 8 on its side; 1 where EXIF is damaged."""
    try:
        turn = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block raises many kinds; the picture itself is fine
        return 1
    return int(turn) if isinstance(turn, int) and 1 <= turn <= 8 else 1


@quiet()
def turned(image: Image.Image) -> Image.Image:
    """The image rotated and mirrored as its EXIF says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image.copy()


def upright(image: Image.Image) -> Image.Image:
    """RGB in sRGB, turned as EXIF says, transparency laid on white, 16 bits brought to 8."""
    profile = image.info.get("icc_profile")
    image = turned(image)
    if image.mode.startswith(("I", "F")):
        image = to_8_bit(image)
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


def to_srgb(image: Image.Image, profile: Any = None) -> Image.Image:
    """An image without alpha as RGB in sRGB.

    A profile that is damaged, or of another colour space than the image, is ignored, as browsers do.

    Args:
        image: Of 8 bits a channel.
        profile: The bytes of its ICC profile, if it has one.
    """
    if profile or image.mode == "LAB":
        try:
            converted = _through_profile(image, profile)
        except Exception:  # lcms and Pillow raise many kinds for a damaged profile; the pixels are fine
            converted = None
        if converted is not None:
            return converted
    return (image.convert("L") if image.mode == "LAB" else image).convert("RGB")


def _through_profile(image: Image.Image, profile: Any) -> Image.Image | None:
    """The image converted to sRGB; None where the profile does not fit it, or is sRGB itself."""
    from PIL import ImageCms

    source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    colours: Any = getattr(source, "profile", source)
    mode = MODES[colours.xcolor_space.strip()]
    if mode != image.mode and ("CMYK" in (mode, image.mode) or "LAB" in (mode, image.mode)):
        return None
    if mode == "L" and image.mode not in ("1", "L"):
        return None
    transform = ImageCms.buildTransform(
        source,
        _srgb(),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode in ("RGB", "L"):
        sample = _sample().convert(mode)
        moved = np.asarray(ImageCms.applyTransform(sample, transform), dtype=int)
        if np.abs(moved - np.asarray(sample.convert("RGB"), dtype=int)).max() <= 2:
            return None  # sRGB under its own name: the pixels stay as they are to the bit
    return ImageCms.applyTransform(image.convert(mode), transform)


@lru_cache(maxsize=1)
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=1)
def _sample() -> Image.Image:
    """512 colours spread over the whole cube, to see whether a profile moves any."""
    cube = np.stack(np.meshgrid(*[np.linspace(0, 255, 8)] * 3), -1)  # (8, 8, 8, 3)
    return Image.fromarray(cube.reshape(64, 8, 3).astype(np.uint8))


def to_8_bit(image: Image.Image) -> Image.Image:
    """16- and 32-bit gray and float images as 8-bit gray."""
    values = fractions(image)
    values *= 255.0
    gray = Image.fromarray(values.round(out=values).astype(np.uint8))
    gray.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return gray


def fractions(image: Image.Image) -> np.ndarray:
    """A gray image of any depth as fp32 (H, W), 0 black and 1 white.

    Integers beyond 255 are read as 16-bit; floats up to 1 as fractions of white.
    """
    values = np.array(image, dtype=np.float32)  # 8 bits are wanted of its 24, and a large picture has to fit
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16"):
        white = 65535.0
    elif image.mode in ("1", "F"):
        white = 1.0 if top <= 1.0 else 255.0 if top <= 255.0 else top
    else:
        white = 255.0 if top <= 255.0 else 65535.0 if top <= 65535.0 else top
    np.clip(values, 0, white, out=values)
    values /= white
    return values
