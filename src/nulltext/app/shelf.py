"""What lies in the run folders: inversions that can be opened, and the edits that were made of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from nulltext.data.decode import decode
from nulltext.errors import UserError
from nulltext.inversion.reading import read_facts
from nulltext.pixels import save_png
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.folder import LOGS
from nulltext.runs.results import method_of, summary

SIDE = 512
"""Of a picture that is small enough to be sent often and large enough to be looked at, in pixels."""


def newest(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, the newest first."""
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)


def runs(root: Path) -> dict[str, Path]:
    """The inverted pictures by run and name, the newest first: their folders."""
    folders = [path.parent for path in newest(root, f"{LOGS}/*/*/{ARTIFACT}")]
    return {f"{folder.parent.name}/{folder.name}": folder for folder in folders}


def history(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The edits of an inverted picture, the newest first: their PNGs and settings."""
    found = [(path.with_suffix(".png"), read_json(path)) for path in newest(folder, "edits/*.json")]
    return [(path, facts) for path, facts in found if path.is_file()]


def fidelity(folder: Path) -> str:
    """How well a picture was inverted and what it cost, in one line."""
    numbers = read_json(folder / "metrics.json")
    if not numbers:
        return f"PSNR of {folder.name}: {read_facts(folder / ARTIFACT)['psnr']:.2f} dB"
    costs = f"{numbers['unet_forwards']} evaluations and {numbers['unet_backwards']} gradients of the network"
    return f"PSNR of {summary(numbers, method_of(numbers))}; {costs}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is no such file or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def contained(image: Image.Image) -> Image.Image:
    """A picture in a size to be looked at."""
    return ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)


def framed(photo: Image.Image, box: Sequence[float]) -> Image.Image:
    """A small copy of a photo with all but a piece of it darkened; the box is in the photo's pixels."""
    image = contained(photo)
    left, top, right, bottom = (round(side * image.width / photo.width) for side in box)
    dark = Image.blend(image, Image.new("RGB", image.size), 0.6)
    dark.paste(image.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dark).rectangle((left, top, right - 1, bottom - 1), outline="#ff7a00", width=3)
    return dark


def data_url(path: Path) -> str:
    """A picture as the brush of the page takes it."""
    file = io.BytesIO()
    contained(Image.open(path)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def write_painting(painted: str, folder: Path) -> Path:
    """What was painted over an inverted picture, as a mask over its photo that ``edit`` reads.

    Raises:
        UserError: Nothing was painted.
    """
    content = base64.b64decode(painted.partition(",")[2])
    mask = decode(content)[0].convert("L") if content else Image.new("L", (1, 1))
    if mask.getbbox() is None:
        raise UserError(
            "nothing is painted; paint over the picture where it may change, or choose another Where"
        )
    placement = read_facts(folder / ARTIFACT).get("placement")
    if placement:  # else a square piece of a square photo would be taken for the whole
        left, top, right, bottom = (round(side) for side in placement["box"])
        over = Image.new("L", tuple(reversed(placement["original"])))
        over.paste(mask.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        mask = over
    path = folder / "edits" / "masks" / f"{hashlib.sha256(mask.tobytes()).hexdigest()[:12]}.png"
    save_png(path, mask)
    return path
