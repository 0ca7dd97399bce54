"""A picture as the method sees it: read from a file, or given as an image, an array or a tensor."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nulltext.data.colour import orientation, upright
from nulltext.data.decode import MAX_PIXELS, MIN_SIDE, decode, naming
from nulltext.data.frame import Frame, Placement
from nulltext.data.metadata import Row
from nulltext.data.prompts import Prompt, find_prompt, weights_note
from nulltext.data.text import on_disk
from nulltext.errors import UserError
from nulltext.pixels import from_image


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, its words, and where both came from."""

    pixels: Tensor  # (3, H, W) fp32 in [-1, 1], RGB
    prompt: str  # what the picture shows; may be empty
    name: str  # of the folder of its results; unique among the pictures of a run
    path: Path | None = None  # the file it was read from
    sha256: str = ""  # hex digest of that file's bytes, or of the pixels
    crop: str = "center"  # the rule that cut it out, as in ``Frame``
    placement: Placement | None = None  # how the photo's pixels map to these
    prompt_source: str = ""  # ``given``, a file's name, ``its EXIF ImageDescription``, ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of ``pixels``."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    @property
    def notes(self) -> list[str]:
        """What a person should know of it, a line each: it shrinks a lot; its prompt has weights."""
        notes = (self.placement.note() if self.placement else None, weights_note(self.prompt))
        return [note for note in notes if note]


def read_picture(
    path: Path | str,
    frame: Frame | None = None,
    *,
    prompt: str | None = None,
    row: Row | None = None,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    caption: Callable[[Image.Image], str] | None = None,
) -> Picture:
    """Reads one picture, in any mode, with its prompt; by default the middle square at 512.

    Without a ``prompt`` it comes from the ``row`` of a metadata file, the text file beside the picture, its own
    description, or from ``caption``, such as a ``Captioner``. ``name``, by default the file's stem, names the results.

    Raises:
        UserError: No such picture, it cannot be decoded, is too large or too small, or has no prompt.
    """
    path = on_disk(path)
    image, sha256 = decode(path, max_pixels)
    found = find_prompt(path, image, prompt, row, caption)
    with naming(path):
        picture = _framed(image, frame or Frame(), found, name or path.stem, sha256)
    return replace(picture, path=path)


def picture_from(
    source: Path | str | Image.Image | np.ndarray | Tensor,
    frame: Frame | None = None,
    *,
    prompt: str | None = None,
    name: str | None = None,
) -> Picture:
    """A picture from whatever a notebook has.

    Args:
        source: A path; a PIL image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), of integers or of floats in
            [0, 1]; or a tensor (3, H, W) or (1, 3, H, W) in [-1, 1], taken as it is.
        frame: How it is cut and resized; of a tensor only ``multiple`` counts.
        prompt: What it shows; by default what a path or a PIL image says.
        name: Names the results.

    Raises:
        UserError: As ``read_picture``; a shape or a range of values is another.
    """
    frame = frame or Frame()
    if isinstance(source, str | Path):
        return read_picture(source, frame, prompt=prompt, name=name)
    name = name or "picture"
    if isinstance(source, Tensor):
        pixels = _checked(source, frame.multiple)
        found = find_prompt(None, Image.new("RGB", (1, 1)), prompt)
        height, width = pixels.shape[-2:]
        place = Frame("none", (height, width), 1).place(width, height)
        sha256 = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        return Picture(pixels, found.text, name, None, sha256, "none", place, found.source)
    image = source if isinstance(source, Image.Image) else _from_array(np.asarray(source))
    if min(image.size) < MIN_SIDE:
        raise UserError(
            f"the picture has {image.width} x {image.height} pixels; give at least {MIN_SIDE} a side"
        )
    sha256 = hashlib.sha256(image.mode.encode() + image.tobytes()).hexdigest()
    return _framed(image, frame, find_prompt(None, image, prompt), name, sha256)


def _framed(image: Image.Image, frame: Frame, prompt: Prompt, name: str, sha256: str) -> Picture:
    """An image cut and resized."""
    whole = upright(image)
    place = frame.place(*whole.size, orientation=orientation(image))
    pixels = from_image(place.apply(whole))
    return Picture(pixels, prompt.text, name, None, sha256, frame.crop, place, prompt.source)


def _from_array(array: np.ndarray) -> Image.Image:
    """An array (H, W[, channels]) as an image: integers of 8 or 16 bits, or floats in [0, 1]."""
    if array.ndim not in (2, 3) or not array.size or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise UserError(
            f"an array of shape {array.shape} is no picture; give (height, width, 3), or a tensor (3, height, width)"
        )
    white = {"f": 1, "b": 1, "u": 255 if array.max() <= 255 else 65535}.get(array.dtype.kind, 255)
    if array.dtype.kind not in "fbiu" or not (array.min() >= 0 and array.max() <= white):
        raise UserError(
            f"an array of {array.dtype} must lie in [0, {white}]; or give a tensor (3, height, width) in [-1, 1]"
        )
    array = array.reshape(*array.shape[:2], -1) * (255 / white)
    return Image.fromarray(array.round().astype(np.uint8).squeeze())


def _checked(pixels: Tensor, multiple: int) -> Tensor:
    """A tensor of pixels as (3, H, W) fp32 on the CPU."""
    shape = tuple(pixels.shape)
    if shape[-3:-2] != (3,) or shape[:-3] not in ((), (1,)) or not pixels.is_floating_point():
        raise UserError(
            f"a tensor {shape} of {str(pixels.dtype).removeprefix('torch.')} is no picture; give floats "
            f"(3, height, width) in [-1, 1], or an array (height, width, 3)"
        )
    if any(side % multiple or side < MIN_SIDE for side in shape[-2:]):
        raise UserError(
            f"a tensor of {shape[-1]} x {shape[-2]} pixels is taken as it is, and the model needs multiples of "
            f"{multiple} from {MIN_SIDE} on; give a PIL image to have it resized"
        )
    pixels = pixels.detach().reshape(shape[-3:]).to("cpu", torch.float32).contiguous()
    if not float(pixels.abs().max()) <= 1.001:
        raise UserError("a tensor of pixels must lie in [-1, 1]; for x in [0, 255] give x / 127.5 - 1")
    if 0 <= float(pixels.min()) < float(pixels.max()):
        raise UserError(
            "a tensor of pixels lies in [-1, 1], this one in [0, 1]: give 2 * x - 1 or a PIL image"
        )
    return pixels
