"""Drawn scenes as files: an imagefolder with a metadata.jsonl, or one JPEG that carries its caption."""

import json
from pathlib import Path

from PIL import ExifTags, Image

from nulltext.errors import UserError
from nulltext.farmyard.world.drawing import draw
from nulltext.farmyard.world.scene import HELD_OUT_SEEDS
from nulltext.farmyard.world.worlds import SHIPPED, World
from nulltext.files import write_atomically


def write_imagefolder(
    folder: Path, n: int, seed: int = HELD_OUT_SEEDS.start, size: int = 128, world: World = SHIPPED
) -> None:
    """Draw n scenes, seeds `seed` to `seed + n - 1`, into PNG files and one metadata.jsonl (`file_name`, `prompt`).

    Args:
        folder: Where they go; made if need be.
        n: How many.
        seed: The first scene's seed; by default the first that no training has seen.
        size: Side of a picture in pixels.
        world: Whose scenes.

    Raises:
        UserError: n or size cannot be drawn.
    """
    if n < 1 or size < 1:
        raise UserError(f"cannot draw {n} pictures of {size} pixels; give --n and --size of at least 1")
    rows = []
    for number in range(n):
        scene = world.random_scene(seed + number)
        picture, name = draw(scene, size), f"{number:05d}.png"
        write_atomically(folder / name, picture.save)
        rows.append(json.dumps({"file_name": name, "prompt": world.caption(scene)}) + "\n")
    write_atomically(folder / "metadata.jsonl", lambda path: _write(path, "".join(rows)))


def write_jpeg(path: Path, seed: int, size: int = 512, world: World = SHIPPED) -> None:
    """Draw one scene into a JPEG of quality 95 whose EXIF ImageDescription is its caption.

    Args:
        path: The file.
        seed: The scene's seed.
        size: Side of the picture in pixels.
        world: Whose scene.
    """
    scene = world.random_scene(seed)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = world.caption(scene)
    picture = draw(scene, size)
    write_atomically(path, lambda temporary: picture.save(temporary, quality=95, exif=exif))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
