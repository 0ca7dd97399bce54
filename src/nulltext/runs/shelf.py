"""What lies in the run folders: inversions that can be opened, and the edits that were made of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from nulltext.data.decode import decode
from nulltext.data.frame import Placement
from nulltext.errors import UserError
from nulltext.inversion.reading import read_facts
from nulltext.pixels import save_png
from nulltext.runs.finished import ARTIFACT
from nulltext.runs.folder import LOGS
from nulltext.runs.results import method_of, summary

COSTS = ("method", "PSNR in dB (higher is better)", "seconds", "evaluations", "gradients", "run")
"""What ``costs`` gives."""


def inverted(root: Path) -> dict[str, Path]:
    """The inverted pictures by run and name, the newest first: their folders."""
    folders = [path.parent for path in _newest(root, f"{LOGS}/*/*/{ARTIFACT}")]
    return {f"{folder.parent.name}/{folder.name}": folder for folder in folders}


def history(folder: Path) -> list[tuple[Path, str]]:
    """The edits of an inverted picture, the newest first: their PNGs and prompts."""
    found = [path for path in _newest(folder, "edits/*.json") if path.with_suffix(".png").is_file()]
    return [(path.with_suffix(".png"), str(read_json(path).get("prompt", ""))) for path in found]


def _newest(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)


def fidelity(folder: Path) -> str:
    """How well a picture was inverted and what it cost, in one line."""
    numbers = read_json(folder / "metrics.json")
    if not numbers:
        return f"PSNR of {folder.name}: {read_facts(folder / ARTIFACT)['psnr']:.2f} dB"
    costs = f"{numbers['unet_forwards']} evaluations and {numbers['unet_backwards']} gradients of the network"
    return f"PSNR of {summary(numbers, method_of(numbers))}; {costs}"


def costs(folder: Path) -> list[str]:
    """The same as the row of a table, in the columns of ``COSTS``."""
    n = read_json(folder / "metrics.json")
    reached, seconds = f"{n[f'psnr_{method_of(n)}']:.2f}", f"{n['seconds_total']:.1f}"
    return [
        method_of(n),
        reached,
        seconds,
        str(n["unet_forwards"]),
        str(n["unet_backwards"]),
        folder.parent.name,
    ]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is no such file or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_mask(painted: bytes, folder: Path) -> Path:
    """The file of a mask that was painted over an inverted picture, brought over its photo, for an edit to read.

    Raises:
        UserError: Nothing was painted, or it is no picture.
    """
    mask = decode(painted)[0].convert("L") if painted else Image.new("L", (1, 1))
    if mask.getbbox() is None:
        raise UserError(
            "nothing is painted; paint over the picture where it may change, or choose another Where"
        )
    if placement := read_facts(folder / ARTIFACT).get("placement"):
        mask = Placement.from_dict(placement).over(mask)  # else a square piece passes for a square photo
    path = folder / "edits" / "masks" / f"{hashlib.sha256(mask.tobytes()).hexdigest()[:12]}.png"
    save_png(path, mask)
    return path
