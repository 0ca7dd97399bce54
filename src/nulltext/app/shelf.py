"""What lies in the run folders: inversions that can be opened, and the edits that were made of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from nulltext.errors import UserError

SHOWN = 512
"""Pictures with a smaller longer side are shown larger, in pixels."""


def runs(root: Path) -> dict[str, Path]:
    """The inverted pictures by run and name, the newest first: their folders."""
    found = [path.parent for path in root.glob("lightning_logs/*/*/inversion.safetensors")]
    found.sort(key=lambda folder: (folder / "inversion.safetensors").stat().st_mtime, reverse=True)
    return {f"{folder.parent.name}/{folder.name}": folder for folder in found}


def fidelity(folder: Path) -> str:
    """How well a picture was inverted and what it cost, in one line."""
    from nulltext.inversion.reading import read_facts

    facts, numbers = read_facts(folder / "inversion.safetensors"), read_json(folder / "metrics.json")
    line = f"Reconstruction {facts['psnr']:.2f} dB PSNR"
    if numbers:
        line += (
            f", the bound is {numbers['psnr_vae']:.2f} dB (the VAE alone); {numbers['seconds_total']:.1f} s, "
            f"{numbers['unet_forwards']} evaluations and {numbers['unet_backwards']} gradients of the network"
        )
    return line


def history(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The edits of an inverted picture, the newest first: their PNGs and settings."""
    found = [path for path in folder.glob("edits/*.json") if path.with_suffix(".png").is_file()]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [(path.with_suffix(".png"), read_json(path)) for path in found]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is no such file or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def shown(picture: Path | Image.Image) -> Image.Image:
    """A picture large enough to be looked at."""
    image = picture if isinstance(picture, Image.Image) else Image.open(picture)
    times = max(1, SHOWN // max(image.size))
    return image.convert("RGB").resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)


def gallery(pictures: Iterable[tuple[Path | Image.Image, str]]) -> list[tuple[Image.Image, str]]:
    """Pictures with captions, as a gallery takes them; it would drop the second of two equal ones."""
    rows = [(shown(picture), caption) for picture, caption in pictures]
    for k, (image, _) in enumerate(rows):
        image.info = {"place": str(k)}
    return rows


def framed(path: Path, crop: str, size: Any, multiple: int) -> tuple[Image.Image, str, tuple[int, int]]:
    """A picture to invert: small with its crop drawn in, the prompt that ``fit`` finds, its (width, height).

    Raises:
        UserError: As ``read_picture``, but for a prompt: where nothing has one it is empty.
    """
    from nulltext.data.colour import upright
    from nulltext.data.decode import decode
    from nulltext.data.frame import Frame
    from nulltext.data.prompts import find_prompt

    image, _ = decode(path)
    whole = upright(image)
    placement = Frame(crop, size, multiple).place(*whole.size)
    try:
        prompt = find_prompt(path, image).text
    except UserError:
        prompt = ""
    scale = SHOWN / max(whole.size)
    small = whole.resize((max(1, round(whole.width * scale)), max(1, round(whole.height * scale))))
    left, top, right, bottom = (round(side * scale) for side in placement.box)
    dark = Image.blend(small, Image.new("RGB", small.size), 0.6)
    dark.paste(small.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dark).rectangle((left, top, right - 1, bottom - 1), outline="#ff7a00", width=3)
    return dark, prompt, whole.size


def data_url(image: Image.Image) -> str:
    """A picture as the brush of the page takes it."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def write_painting(painted: str, folder: Path) -> Path:
    """What was painted over an inverted picture, as a mask over its photo that ``edit`` reads.

    Raises:
        UserError: Nothing was painted.
    """
    from nulltext.data.decode import decode
    from nulltext.files import write_atomically
    from nulltext.inversion.reading import read_facts

    content = base64.b64decode(painted.partition(",")[2])
    mask = decode(content)[0].convert("L") if content else Image.new("L", (1, 1))
    if mask.getbbox() is None:
        raise UserError(
            "nothing is painted; paint over the picture where it may change, or choose another Where"
        )
    placement = read_facts(folder / "inversion.safetensors").get("placement")
    if placement:  # else a square piece of a square photo would be taken for the whole
        left, top, right, bottom = (round(side) for side in placement["box"])
        over = Image.new("L", tuple(reversed(placement["original"])))
        over.paste(mask.resize((right - left, bottom - top), Image.Resampling.BOX), (left, top))
        mask = over
    path = folder / "edits" / "masks" / f"{hashlib.sha256(mask.tobytes()).hexdigest()[:12]}.png"
    write_atomically(path, lambda temporary: mask.save(temporary, format="PNG"))
    return path


def painting(mask: Path, folder: Path) -> str:
    """A mask file as the brush of the page takes it: the inverse of ``write_painting``."""
    from nulltext.data.frame import Placement
    from nulltext.data.masks import read_mask
    from nulltext.inversion.reading import read_facts

    facts = read_facts(folder / "inversion.safetensors")
    placement = Placement.from_dict(facts["placement"]) if facts.get("placement") else None
    values = read_mask(mask, placement, tuple(facts["size"]))
    return data_url(Image.fromarray((values * 255).round().byte().numpy()))
