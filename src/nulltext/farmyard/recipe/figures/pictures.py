"""The pictures that figures are measured on, and grids of pictures to look at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nulltext.farmyard.recipe.data.pixels import to_pixels
from nulltext.farmyard.world import HELD_OUT_SEEDS, Scene, World, draw
from nulltext.files import write_atomically

PHOTOGRAPHS = ("cat", "astronaut", "coffee", "rocket")


def held_out(world: World, n: int, first: int) -> tuple[list[Scene], Tensor]:
    """Held-out scenes and their pictures, (n, 3, size, size) in [-1, 1]."""
    scenes = [world.random_scene(seed) for seed in HELD_OUT_SEEDS[first : first + n]]
    return scenes, to_pixels(np.stack([np.asarray(draw(scene, world.size)) for scene in scenes]))


def photographs(size: int) -> Tensor:
    """scikit-image's cat, astronaut, coffee and rocket, their middle squares, (4, 3, size, size) in [-1, 1]."""
    from skimage import data

    squares = []
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(data, name)())
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        squares.append(np.asarray(square.resize((size, size), Image.Resampling.LANCZOS).convert("RGB")))
    return to_pixels(np.stack(squares))


def save_grid(pictures: Tensor, columns: int, path: Path, scale: int = 1) -> None:
    """Write pictures (n, 3, H, W) in [-1, 1] row by row into one PNG, enlarged without smoothing.

    Args:
        pictures: n a multiple of `columns`.
        columns: Pictures in a row.
        path: The file.
        scale: How many pixels a pixel becomes, each way.
    """
    n, _, height, width = pictures.shape
    grid = pictures.unflatten(0, (n // columns, columns)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, 3)
    grid = grid.reshape(n // columns * height, columns * width, 3)
    picture = Image.fromarray(((grid.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
    size = (picture.width * scale, picture.height * scale)
    write_atomically(path, picture.resize(size, Image.Resampling.NEAREST).save)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR of each picture, (n,) dB, of pictures in [-1, 1]."""
    mse = ((a.clamp(-1, 1) - b) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse)
