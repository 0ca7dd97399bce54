"""The pictures that the benchmarks invert: drawings that the model was not trained on, and photographs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError

PHOTOGRAPHS = {  # of scikit-image, with what the farmyard's vocabulary can say of them
    "cat": "a photo of a brown cat",
    "astronaut": "a photo of a white dog with a red hat",
    "coffee": "a photo of a brown cow next to a fence",
    "rocket": "a photo of a white chicken in the snow",
}


@dataclass
class Subject:
    """The latents of a picture, or of several at once, and what they show; the method's input."""

    z_0: Tensor  # (B, 4, h, w)
    cond: TextEmbedding  # B rows
    null: TextEmbedding  # one row: the empty prompt


def drawn_pictures(number: int, size: int) -> list[tuple[Tensor, str]]:
    """Held-out scenes of the farmyard: pixels (3, S, S) in [-1, 1] and captions."""
    from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene
    from nulltext.pictures import to_pixels

    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[:number]]
    return [(to_pixels(draw(scene, size)), caption(scene)) for scene in scenes]


def photographs(size: int) -> list[tuple[Tensor, str]]:
    """Four photographs that scikit-image carries, cut square from the middle."""
    from PIL import Image, ImageOps
    from skimage import data

    from nulltext.pictures import to_pixels

    pictures = [ImageOps.fit(Image.fromarray(getattr(data, name)()), (size, size)) for name in PHOTOGRAPHS]
    return [
        (to_pixels(picture), prompt) for picture, prompt in zip(pictures, PHOTOGRAPHS.values(), strict=True)
    ]


def check_installed(*modules: str) -> None:
    """Asks for the optional packages that are missing."""
    for module in modules:
        if find_spec(module) is None:
            raise UserError(f"this needs {module}, which is not installed; pip install 'nulltext[eval]'")


def pictures_of(options: argparse.Namespace, size: int) -> list[tuple[Tensor, str]]:
    """The pictures that the options ask for."""
    return photographs(size) if options.photographs else drawn_pictures(options.pictures, size)


def subject_of(backbone: Backbone, pixels: Tensor, prompt: str) -> Subject:
    """A picture and its prompt as the model sees them."""
    z_0 = backbone.encode_image(pixels[None])
    return Subject(z_0, backbone.embed_prompt(prompt), backbone.embed_prompt(""))


def psnr(a: Tensor, b: Tensor) -> float:
    """dB, of pixels in [-1, 1]."""
    return float(-10 * ((a - b).square().mean() / 4).log10())
