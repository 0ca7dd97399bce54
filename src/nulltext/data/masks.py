"""Masks as people paint them, brought through everything that their picture went through."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nulltext.data.colour import fractions, split_alpha, turned
from nulltext.data.decode import decode, naming
from nulltext.data.frame import Placement
from nulltext.errors import UserError

NEARLY = 8 / 255
"""What JPEG leaves of black and of white: so close to an end counts as the end."""

PAINT = "paint white where the edit may act, black elsewhere"
TURNS = {  # EXIF orientation -> what brings the file's pixels upright
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_mask(source: Path | str | bytes, placement: Placement | None, size: tuple[int, int]) -> Tensor:
    """A mask from a picture file: white where the edit may act, gray for a soft edge.

    It may be painted over the whole photo (or a smaller copy of it), upright or as the camera stored it, or over the
    piece that the model sees. Transparent counts as black. Where there is black and one other value, as in labels of
    0 and 1, that one is white.

    Args:
        source: The file, or the bytes of one.
        placement: How the photo's pixels map to the model's; None where that is not known.
        size: (H, W) of the picture in the model's pixels.

    Returns:
        (H, W) fp32 in [0, 1].

    Raises:
        UserError: It cannot be read, has no white, is a photograph, or has the shape of neither.
    """
    what = "the mask" if isinstance(source, bytes) else f"the mask {source}"
    try:
        image, _ = decode(source)
    except UserError as error:
        raise UserError(f"cannot read {what}: {error}; give a picture and {PAINT}") from error
    with naming(what):
        return place_mask(mask_values(image), placement, size)


def mask_values(image: Image.Image) -> Image.Image:
    """How white each pixel of a mask is, in its own size, upright: mode F in [0, 1].

    Raises:
        UserError: It has no white, or is a photograph.
    """
    image, alpha = split_alpha(turned(image))
    if image.mode.startswith(("I", "F")) or image.mode == "1":
        values = fractions(image)
    else:
        if _is_photograph(image):
            raise UserError(f"is a photograph rather than a mask; {PAINT}")
        values = fractions(image.convert("L"))
    if alpha is not None:
        values *= fractions(alpha)
    top = float(values.max(initial=0.0))
    if top == 0:
        hint = " (and opaque: a mask's transparent parts count as black)" if alpha is not None else ""
        raise UserError(f"is black all over, so nothing would be edited; paint white where to edit{hint}")
    if not ((values > 0) & (values < top)).any() and not (values == top).all():  # labels: 0 and one more
        values /= top
    elif top < 0.5:
        raise UserError(f"has {top * 255:.3g} of 255 as its brightest value, nearly black; {PAINT}")
    values[values < NEARLY] = 0
    values[values > 1 - NEARLY] = 1
    return Image.fromarray(values)


def place_mask(mask: Image.Image, placement: Placement | None, size: tuple[int, int]) -> Tensor:
    """A mask in the photo's coordinates or the model's as (H, W) in [0, 1] over the model's pixels.

    Raises:
        UserError: It has the shape of neither, or no white is left in the piece that the model sees.
    """
    height, width = size
    if placement is not None:
        if _alike(mask, placement.original[::-1]):
            placed = placement.apply(mask, _resampling(mask, placement))
            return _not_empty(placed, "its white lies outside the piece that was cut out")
        if placement.orientation in TURNS and _alike(mask, placement.original):  # as the camera stored it
            return place_mask(mask.transpose(TURNS[placement.orientation]), placement, size)
    if _alike(mask, (width, height)):
        down = mask.width >= width
        return _not_empty(
            mask.resize((width, height), Image.Resampling.BOX if down else Image.Resampling.BILINEAR), ""
        )
    photo = (
        "how its photo was cut is not known"
        if placement is None
        else f"the photo {placement.original[1]} x {placement.original[0]}"
    )
    raise UserError(
        f"is {mask.width} x {mask.height}, the picture {width} x {height}, {photo}; paint it over one of them, "
        f"so that it has that shape"
    )


def _alike(mask: Image.Image, size: tuple[int, int]) -> bool:
    """Whether a mask is a copy of (width, height) at any scale, rounding aside."""
    return abs(mask.width * size[1] - mask.height * size[0]) <= max(
        *mask.size, *size, 0.01 * mask.width * size[1]
    )


def _resampling(mask: Image.Image, placement: Placement) -> Image.Resampling:
    """Shrinking takes the mean of the pixels; growing draws lines between them."""
    left, _, right, _ = placement.box
    shrinks = (right - left) * mask.width / placement.original[1] >= placement.size[1]
    return Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR


def _not_empty(mask: Image.Image, why: str) -> Tensor:
    values = torch.from_numpy(np.array(mask, dtype=np.float32)).clamp(0, 1)
    if not bool((values > 0).any()):
        raise UserError(
            f"{why or 'is too thin to be seen'}; paint white inside the picture, or cut another piece"
        )
    return values


def _is_photograph(image: Image.Image) -> bool:
    """Whether many pixels have many colours: the wrong file was given."""
    small = np.asarray(
        image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST), dtype=int
    )  # (64, 64, 3)
    coloured = small[small.max(-1) - small.min(-1) > 24] // 16
    return len(coloured) > 0.25 * 64 * 64 and len(np.unique(coloured, axis=0)) > 48
