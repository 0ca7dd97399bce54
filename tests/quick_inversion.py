"""A quick inversion of a made-up picture, for tests of what is done with one."""

import torch
from torch import Tensor

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone
from nulltext.inversion import invert
from nulltext.inversion_settings import InversionSettings
from nulltext.pictures import Picture

SOURCE = "a red barn"
SWAP = "a red hat"
LONGER = "a red barn in snow"


def quick_inversion(
    backbone: Backbone, height: int = 32, width: int = 24, start: float = 1.0, seed: int = 0
) -> tuple[Inversion, Tensor]:
    """The inversion of a random smooth picture, T = 4, and its pixels (3, H, W)."""
    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pixels = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0]
    picture = Picture(pixels=pixels, prompt=SOURCE, name="barn", size=(height, width), crop="none")
    settings = InversionSettings(
        steps=4, inner_steps=1, start=start, fixed_point_iterations=1, pivot_tolerance=0.0
    )
    return invert(backbone, picture, settings=settings), pixels
