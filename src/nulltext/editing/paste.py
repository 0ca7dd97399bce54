"""An edit put back into the photograph, at the photograph's own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nulltext.data.colour import upright
from nulltext.data.decode import decode
from nulltext.data.frame import Placement
from nulltext.editing.compositing import smooth
from nulltext.errors import UserError
from nulltext.inversion.file import Inversion
from nulltext.pixels import as_saved, from_image, from_unit, to_image

REACH = 3
"""Side, in the model's pixels, by which the changed pixels grow before anything is put back."""
NEAR = 5
"""Side, in the model's pixels, of the neighbourhood whose largest change says how clear a change is."""
CLEARLY = 0.25
"""Change, in [-1, 1], from which the edit's own pixels are taken; below it the photo's keep their grain."""


def read_photo(path: Path, inversion: Inversion) -> Image.Image:
    """The photograph that was inverted, upright, 8-bit RGB in sRGB.

    Raises:
        UserError: It cannot be read, is another picture, or the inversion does not say where its pixels came from.
    """
    image, sha256 = decode(path)
    if sha256 != inversion.source_sha256:
        raise UserError(f"{path} is not the picture that was inverted; give the same file that fit was given")
    if not inversion.placement:
        raise UserError("the inversion does not say where its pixels lie in the photograph; invert it again")
    return upright(image)


def paste(photo: Image.Image, placement: Placement, edited: Tensor, original: Tensor) -> Image.Image:
    """A photograph with an edit put back, cut and turn undone.

    Where the edit equals the original the photo's pixels stay to the bit. Where it differs a little the difference is
    added to them, so that their grain stays; where it differs clearly its own pixels are taken, enlarged.

    Args:
        photo: The whole photograph, upright, RGB.
        placement: Where the model's pixels came from.
        edited: The edit (3, H, W) in [-1, 1].
        original: What was inverted (3, H, W) in [-1, 1].
    """
    left, top, right, bottom = placement.box
    x, y = int(np.floor(left)), int(np.floor(top))
    width, height = int(np.ceil(right)) - x, int(np.ceil(bottom)) - y
    offset, scale = (
        (left - x, top - y),
        ((right - left) / edited.shape[-1], (bottom - top) / edited.shape[-2]),
    )
    edited, original = (from_unit(as_saved(pixels.cpu())) for pixels in (edited, original))
    change = edited - original  # (3, H, W)
    far = change.abs().amax(0, keepdim=True)
    touched = F.max_pool2d((far > 0).float(), REACH, stride=1, padding=REACH // 2)
    near = F.max_pool2d(far, NEAR, stride=1, padding=NEAR // 2)  # else outlines of what is gone stay as grain
    clear = smooth((near / CLEARLY).clamp(max=1) * touched)  # (1, H, W)

    def enlarged(values: Tensor, mode: str = "bicubic") -> Tensor:
        return _enlarge(values, (height, width), offset, scale, mode)

    piece = from_image(photo.crop((x, y, x + width, y + height)))
    kept = piece + enlarged(change)
    mixed = torch.lerp(kept, enlarged(edited), enlarged(clear, "bilinear").clamp(0, 1))
    mixed = torch.where(enlarged(touched, "nearest") > 0, mixed, piece)
    result = photo.copy()
    result.paste(to_image(mixed.clamp(-1, 1)), (x, y))
    return result


def _enlarge(
    values: Tensor, size: tuple[int, int], offset: tuple[float, float], scale: tuple[float, float], mode: str
) -> Tensor:
    """Values (c, H, W) at the pixels of a piece of the photo (c, height, width)."""
    rows, columns = size
    x = (torch.arange(columns) + 0.5 - offset[0]) / scale[0]  # in the model's pixels
    y = (torch.arange(rows) + 0.5 - offset[1]) / scale[1]
    grid = torch.stack(
        torch.meshgrid(2 * x / values.shape[-1] - 1, 2 * y / values.shape[-2] - 1, indexing="xy"), dim=-1
    )
    return F.grid_sample(values[None], grid[None], mode, padding_mode="border", align_corners=False)[0]
