"""What tests draw: a gradient, files of it."""

import numpy as np
from PIL import Image

from nulltext.data.frame import Frame
from nulltext.data.picture import read_picture

EXIF_DESCRIPTION, EXIF_ORIENTATION = 0x010E, 0x0112


def gradient(width, height):
    """RGB whose red grows to the right and green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], -1).astype(np.uint8))


def saved(image, path, **options):
    image.save(path, **options)
    return path


def read(path, crop="center", size=64, prompt="a picture", **options):
    return read_picture(path, Frame(crop, size, 8), prompt=prompt, **options)


def exif(**tags):
    """EXIF with the tags named: ``exif(description="a cow", orientation=6)``."""
    numbers = {"description": 0x010E, "orientation": 0x0112, "make": 0x010F, "model": 0x0110, "title": 0x9C9B}
    block = Image.Exif()
    for name, value in tags.items():
        block[numbers[name]] = value
    return block
