"""Masks as people paint them, brought through everything that their picture went through."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nulltext.data.colour import fractions, orientation, split_alpha, turned
from nulltext.data.decode import decode, naming
from nulltext.data.frame import Placement
from nulltext.errors import UserError

NEARLY = 8 / 255  # what JPEG leaves of black and of white: so close to an end counts as the end
PAINT = "paint white where the edit may act, black elsewhere"


def read_mask(source: Path | str | bytes, placement: Placement | None, size: tuple[int, int]) -> Tensor:
    """A mask from a picture file: white where the edit may act, gray for a soft edge.

    It may be painted over the whole photo (or a smaller copy of it), upright or as the camera stored it, or over the
    piece that the model sees. Transparent counts as black. Where there is black and one other value, as in labels of
    0 and 1, that one is white.

    Returns:
        fp32 in [0, 1] of ``size``, which is (H, W) in the model's pixels.

    Raises:
        UserError: It cannot be read, has no white, is a photograph, or has the shape of neither.
    """
    what = "the mask" if isinstance(source, bytes) else f"the mask {source}"
    try:
        image, _ = decode(source)
    except UserError as error:
        raise UserError(f"cannot read {what}: {error}; give a picture and {PAINT}") from error
    with naming(what):
        return _place(_whiteness(turned(image, orientation(image))), placement, size)


def _whiteness(image: Image.Image) -> Image.Image:
    """How white each pixel of an upright mask is: mode F in [0, 1]."""
    image, alpha = split_alpha(image)
    if not image.mode.startswith(("I", "F")) and image.mode != "1":
        if _is_photograph(image):
            raise UserError(f"is a photograph rather than a mask; {PAINT}")
        image = image.convert("L")
    values = fractions(image)
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


def _is_photograph(image: Image.Image) -> bool:
    """Whether many pixels have many colours: the wrong file was given."""
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.NEAREST), dtype=int)
    coloured = small[small.max(-1) - small.min(-1) > 24] // 16
    return len(coloured) > 0.25 * 64 * 64 and len(np.unique(coloured, axis=0)) > 48


def _place(mask: Image.Image, placement: Placement | None, size: tuple[int, int]) -> Tensor:
    """A mask in the photo's coordinates or the model's as (H, W) in [0, 1] over the model's pixels."""
    photo = "how its photo was cut is not known"
    if placement:
        for copy in (mask, turned(mask, placement.orientation)):  # the second: as the camera stored it
            if _alike(copy, placement.original):
                return _placed(copy, placement, "its white lies outside the piece that was cut out")
        photo = f"the photo {placement.original[1]} x {placement.original[0]}"
    height, width = size
    if _alike(mask, size):
        whole = Placement(size, 1, (0, 0, width, height), size)
        return _placed(mask, whole, "is too thin to be seen")
    raise UserError(
        f"is {mask.width} x {mask.height}, the picture {width} x {height}, {photo}; paint it over one of them, "
        f"so that it has that shape"
    )


def _alike(mask: Image.Image, size: tuple[int, int]) -> bool:
    """Whether a mask is a copy of (height, width) at any scale, rounding aside."""
    across, down = mask.width * size[0], mask.height * size[1]
    return abs(across - down) <= max(*mask.size, *size, 0.01 * across)


def _placed(mask: Image.Image, placement: Placement, why_empty: str) -> Tensor:
    """Shrinking takes the mean of the pixels; growing draws lines between them."""
    left, _, right, _ = placement.box
    shrinks = (right - left) * mask.width / placement.original[1] >= placement.size[1]
    way = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    values = torch.from_numpy(np.array(placement.apply(mask, way), dtype=np.float32)).clamp(0, 1)
    if not bool(values.any()):
        raise UserError(f"{why_empty}; paint white inside the picture, or cut another piece")
    return values
