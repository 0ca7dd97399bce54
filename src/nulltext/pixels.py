"""Every conversion between pixels in [-1, 1], in [0, 1], and of 8 bits.

Inside the package pixels are (..., 3, H, W) fp32 in [-1, 1]; metrics take [0, 1]; files hold 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from nulltext.files import write_atomically


def from_image(image: Image.Image) -> Tensor:
    """A PIL image as pixels (3, H, W) in [-1, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1.0  # (H, W, 3)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_8_bit(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] clamped and rounded to uint8, same shape, on the CPU."""
    return ((pixels.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def to_image(pixels: Tensor) -> Image.Image:
    """Pixels (3, H, W) in [-1, 1] as a PIL image: the inverse of ``from_image``."""
    return Image.fromarray(to_8_bit(pixels).permute(1, 2, 0).numpy())


def to_unit(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1], clamped, as [0, 1]."""
    return (pixels.clamp(-1, 1) + 1) / 2


def from_unit(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] as [-1, 1]."""
    return pixels * 2 - 1


def as_saved(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as a PNG holds them: [0, 1] in steps of 1/255, on the CPU."""
    return to_8_bit(pixels).float() / 255


def save_png(path: Path, picture: Tensor | Image.Image, text: Mapping[str, str] | None = None) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        path: The file.
        picture: Pixels (3, H, W) in [-1, 1], or a PIL image.
        text: What the PNG says in its text chunks, such as ``{"prompt": "a horse"}``.
    """
    image = to_image(picture) if isinstance(picture, Tensor) else picture
    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_itxt(key, value)
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG", pnginfo=chunks))
