"""What ``fit`` is told of pictures and curves. Without Lightning, so that ``fit --help`` need not import it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nulltext.data.decode import MAX_PIXELS


@dataclass(frozen=True)
class PictureOptions:
    """The pictures to invert, and what they show.

    Args:
        image: A picture, a folder, a glob such as 'farm/*.jpg', several of them, or a metadata.jsonl (.csv) with
            file_name and prompt in each row.
        prompt: What the picture shows. Without it: its row in the metadata file, sheep.txt beside sheep.jpg, or the
            description inside the picture.
        crop: center (the largest square in the middle), none (the whole picture, its shape kept), or a box
            left,top,right,bottom in pixels.
        size: Side in pixels, height,width or WIDTHxHEIGHT; the model's own by default.
        captioner: A BLIP model, id or folder, that describes the pictures that have no prompt.
        batch_size: Pictures optimised at once, if they have one size; by default 1, 2, 4 or 8, as the free memory
            allows. With 1, a picture's result is the same to the bit whatever other pictures are in the run.
        max_pixels: Largest width times height that is decoded.
    """

    image: list[Path] | Path | None = None
    prompt: str | None = None
    crop: str = "center"
    size: int | str | tuple[int, int] | None = None
    captioner: str | None = None
    batch_size: int | None = None
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class CurveOptions:
    """Curves and pictures in TensorBoard.

    Args:
        images_every: Timesteps between pictures of where the trajectory is heading; 0 for none.
    """

    images_every: int = 5
