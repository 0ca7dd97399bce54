"""Scenes drawn once and kept as uint8 arrays, so that training never waits for a picture."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nulltext.farmyard.drawing import draw
from nulltext.farmyard.scene import random_scene
from nulltext.farmyard.textures import photo_like
from nulltext.files import write_atomically

FIRST_TRAINING_SEED = 0
SIZE = 64
SAMPLE = 64
"""How many pictures of a file are drawn again to see whether it is still true."""


def draw_seed(seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    """The picture of the scene with this seed, (size, size, 3) uint8."""
    return np.asarray(draw(random_scene(seed), size=size).convert("RGB"))


def _stack(make: Callable[[int], NDArray[np.uint8]], seeds: range) -> NDArray[np.uint8]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(make, seeds, chunksize=64)))


def _is_true(pictures: NDArray[np.uint8], make: Callable[[int], NDArray[np.uint8]], seeds: range) -> bool:
    sample = range(0, len(seeds), max(1, len(seeds) // SAMPLE))
    return len(pictures) == len(seeds) and all(np.array_equal(make(seeds[i]), pictures[i]) for i in sample)


def cached(path: Path, make: Callable[[int], NDArray[np.uint8]], seeds: range) -> NDArray[np.uint8]:
    """The pictures of some seeds, read from a file or, where it is absent or no longer true, drawn into it.

    A file is taken to be true when a sample of its pictures equals what is drawn now.

    Args:
        path: The .npy file that keeps them.
        make: Draws the picture of one seed; must be importable, as it runs in other processes.
        seeds: Which pictures.

    Returns:
        (n, size, size, 3) uint8, memory-mapped.
    """
    if not (path.exists() and _is_true(np.load(path, mmap_mode="r"), make, seeds)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = _stack(make, seeds)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:  # np.save given a name would append .npy to it
                np.save(stream, pictures)

        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def scene_pictures(folder: Path, scenes: int, size: int = SIZE) -> NDArray[np.uint8]:
    """Training scenes 0 to `scenes` - 1 as (scenes, size, size, 3) uint8."""
    seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + scenes)
    return cached(folder / f"scenes_{size}_{scenes}.npy", partial(draw_seed, size=size), seeds)


def photo_like_pictures(folder: Path, pictures: int, size: int = SIZE) -> NDArray[np.uint8]:
    """Synthetic pictures with the statistics of photographs, (pictures, size, size, 3) uint8."""
    return cached(
        folder / f"photo_like_{size}_{pictures}.npy", partial(photo_like, size=size), range(pictures)
    )
