"""What is inverted: drawn scenes that the shipped models were not trained on, and photographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image, ImageOps
from torch import Tensor

from nulltext.metrics.pixel import psnr
from nulltext.models import Conditioning, DiffusionModel
from nulltext.pixels import from_image, to_unit

Drawn: TypeAlias = list[tuple[Tensor, str]]
KINDS = ("drawings", "photographs")
PHOTOGRAPHS = {  # of scikit-image, with what the farmyard's vocabulary can say of them
    "cat": "a photo of a brown cat",
    "astronaut": "a photo of a white dog with a red hat",
    "coffee": "a photo of a brown cow next to a fence",
    "rocket": "a photo of a white chicken in the snow",
}


@dataclass
class Subject:
    """Pictures that go through together, as a method gets them."""

    kind: str  # one of KINDS
    pixels: Tensor  # (B, 3, S, S) in [-1, 1]
    z_0: Tensor  # (B, C, h, w)
    cond: Conditioning  # B rows

    @classmethod
    def of(cls, model: DiffusionModel, pictures: Drawn, kind: str = KINDS[0]) -> Subject:
        """Pictures (3, S, S) in [-1, 1] of one size and their prompts."""
        pixels = torch.stack([pixels for pixels, _ in pictures]).to(model.device)
        size = pixels.shape[-2], pixels.shape[-1]
        return cls(kind, pixels, model.encode(pixels), model.embed([prompt for _, prompt in pictures], size))


def subjects_of(model: DiffusionModel, drawings: int, photographs: int, batch: int = 1) -> list[Subject]:
    """So many drawings, then so many photographs, at the model's own size, ``batch`` at a time."""
    shown = photographs_of_scikit(model.default_size) if photographs else []
    pictures = (drawn_pictures(drawings, model.default_size), shown[:photographs])
    return [
        Subject.of(model, some[k : k + batch], kind)
        for kind, some in zip(KINDS, pictures, strict=True)
        for k in range(0, len(some), batch)
    ]


def drawn_pictures(number: int, size: int) -> Drawn:
    """Held-out scenes of the farmyard, drawn at that size: pixels (3, S, S) in [-1, 1] and captions."""
    from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene

    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[:number]]
    return [(from_image(draw(scene, size)), caption(scene)) for scene in scenes]


def photographs_of_scikit(size: int) -> Drawn:
    """Four photographs that scikit-image carries, cut square from the middle."""
    from skimage import data

    pictures = [ImageOps.fit(Image.fromarray(getattr(data, name)()), (size, size)) for name in PHOTOGRAPHS]
    return [
        (from_image(picture), prompt) for picture, prompt in zip(pictures, PHOTOGRAPHS.values(), strict=True)
    ]


def decibels(ours: Tensor, theirs: Tensor) -> Tensor:
    """PSNR (B,) in dB of pictures (B, 3, S, S) to others, in [-1, 1]."""
    return psnr(to_unit(ours), to_unit(theirs)).cpu()
