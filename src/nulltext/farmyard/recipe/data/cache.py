"""Scenes drawn once into uint8 arrays, so that training never waits for a picture."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nulltext.farmyard.recipe.data.textures import photo_like
from nulltext.farmyard.world.drawing import draw
from nulltext.farmyard.world.scene import HELD_OUT_SEEDS, Scene
from nulltext.farmyard.world.worlds import world_of
from nulltext.files import write_atomically

T = TypeVar("T")
SAMPLE = 64
"""How many pictures of a file are drawn again to see whether it is still true."""


def draw_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """The picture of a scene, (size, size, 3) uint8."""
    return np.asarray(draw(scene, size))


@functools.cache
def held_out_pictures(number: int, size: int) -> NDArray[np.uint8]:
    """The first held-out scenes of the world of a size, drawn once, (number, size, size, 3) uint8."""
    return np.stack([draw_seed(seed, size) for seed in HELD_OUT_SEEDS[:number]])


def draw_seed(seed: int, size: int) -> NDArray[np.uint8]:
    """The picture of the scene with this seed in the world of this size, (size, size, 3) uint8."""
    return draw_scene(world_of(size).random_scene(seed), size)


def _stack(make: Callable[[T], NDArray[np.uint8]], subjects: Sequence[T]) -> NDArray[np.uint8]:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(make, subjects, chunksize=64)))


def _is_true(
    pictures: NDArray[np.uint8], make: Callable[[T], NDArray[np.uint8]], subjects: Sequence[T]
) -> bool:
    sample = range(0, len(subjects), max(1, len(subjects) // SAMPLE))
    return len(pictures) == len(subjects) and all(
        np.array_equal(make(subjects[i]), pictures[i]) for i in sample
    )


def cached(path: Path, make: Callable[[T], NDArray[np.uint8]], subjects: Sequence[T]) -> NDArray[np.uint8]:
    """The pictures of some seeds or scenes, read from a file or, where it is absent or no longer true, drawn into it.

    A file is taken to be true when a sample of its pictures equals what is drawn now.

    Args:
        path: The .npy file that keeps them.
        make: Draws the picture of one; must be importable, as it runs in other processes.
        subjects: Seeds or scenes.

    Returns:
        (n, size, size, 3) uint8, memory-mapped.
    """
    if not (path.exists() and _is_true(np.load(path, mmap_mode="r"), make, subjects)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures = _stack(make, subjects)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:  # np.save given a name would append .npy to it
                np.save(stream, pictures)

        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def scene_pictures(folder: Path, scenes: int, size: int) -> NDArray[np.uint8]:
    """Training scenes 0 to `scenes` - 1 of the world of a size, (scenes, size, size, 3) uint8."""
    return cached(folder / f"scenes_{size}_{scenes}.npy", partial(draw_seed, size=size), range(scenes))


def photo_like_pictures(folder: Path, pictures: int, size: int) -> NDArray[np.uint8]:
    """Synthetic pictures with the statistics of photographs, (pictures, size, size, 3) uint8."""
    path = folder / f"photo_like_{size}_{pictures}.npy"
    return cached(path, partial(photo_like, size=size), range(pictures))
