"""Quick inversions of made-up pictures, for tests of what is done with one."""

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

SOURCE = "a red barn"
SWAP = "a red hat"
LONGER = "a red barn in snow"


def random_picture(height: int = 32, width: int = 32, seed: int = 0, prompt: str = SOURCE) -> Picture:
    """Noise with a prompt."""
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Picture(pixels, prompt, "noise", sha256="0" * 64)


def quick_inversion(
    model: DiffusionModel, height: int = 32, width: int = 24, start: float = 1.0, seed: int = 0
) -> tuple[Inversion, Tensor]:
    """The inversion of a random smooth picture, T = 4, and its pixels (3, H, W)."""
    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pixels = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0]
    picture = Picture(pixels=pixels, prompt=SOURCE, name="barn", crop="none")
    method = NullText(steps=4, inner_steps=1, start=start, fixed_point_iterations=1, pivot_tolerance=0.0)
    return invert(model, picture, method=method), pixels
