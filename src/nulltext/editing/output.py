"""Writes edits beside their inversion: pictures, masks, attention, settings, and a sheet of all; overwrites nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from nulltext import __version__
from nulltext.data.frame import Placement
from nulltext.editing.edit import Edited, EditResult
from nulltext.editing.options import Edit
from nulltext.editing.paste import paste
from nulltext.editing.verdict import said
from nulltext.files import write_text
from nulltext.inversion.file import Inversion
from nulltext.pixels import from_image, save_png, to_image, to_unit
from nulltext.plots import grid, heat_over, strip


class Job(Protocol):
    """One inverted picture and its edits."""

    @property
    def path(self) -> Path:
        """Of its ``inversion.safetensors``."""

    @property
    def edits(self) -> Sequence[Edit]:
        """The edits."""

    @property
    def swept(self) -> Mapping[str, Sequence[float]]:
        """Options and their values: the edits are all combinations for each prompt, the last fastest."""


@dataclass(frozen=True)
class Pictures:
    """What was edited, as far as it is at hand."""

    original: Tensor | None = None  # (3, H, W) in [-1, 1], at the model's size
    photo: Image.Image | None = None  # the photograph, upright, into which edits are put back as well


def write_edits(
    job: Job,
    inversion: Inversion,
    edited: Edited,
    pictures: Pictures,
    settings: Mapping[str, Any],
    *,
    tensorboard: bool = False,
) -> list[tuple[Path, str]]:
    """Writes what came of a job into ``edits/`` beside its inversion: the files, each with what it shows.

    ``settings`` say what else decided the edits, such as the method; with ``tensorboard`` the sheets go there as well.
    """
    folder = job.path.parent / "edits"
    shown: list[tuple[Path, str]] = []
    for result in edited.results:
        values = "".join(f"-{option}-{getattr(result.edit, option):g}" for option in job.swept)
        name = free_name(folder, slug(result.edit.name or result.edit.prompt) + values)
        facts = {**_facts(result, inversion, job.path), **settings}
        shown += _write_edit(folder, name, result, inversion, facts)
        if pictures.photo is not None:
            placement = Placement.from_dict(inversion.placement)
            before = from_image(placement.apply(pictures.photo))
            full = paste(pictures.photo, placement, result.picture, before)
            save_png(folder / f"{name}-full.png", full, _text(result, inversion, facts))
            shown.append((folder / f"{name}-full.png", f"in the photograph, {full.width} x {full.height}"))
    first = job.edits[0]
    for sheet, label, what in _sheets(job, inversion, edited, pictures.original):
        path = folder / f"{free_name(folder, f'{slug(first.name or first.prompt)}-{label}')}.png"
        save_png(path, sheet)
        shown.append((path, what))
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with SummaryWriter(str(folder)) as writer:
                writer.add_image(f"edits/{path.stem}", to_unit(from_image(sheet)))
    return shown


def _write_edit(
    folder: Path, name: str, result: EditResult, inversion: Inversion, facts: Mapping[str, Any]
) -> Iterator[tuple[Path, str]]:
    """The edit with its settings inside, its mask, its attention maps, and its settings as JSON."""
    path = folder / f"{name}.png"
    save_png(path, result.picture, _text(result, inversion, facts))
    yield path, result.edit.prompt + (f" ({said(result.verdict)})" if result.verdict else "")
    if result.mask is not None:
        path = folder / f"{name}-mask.png"
        gray = Image.fromarray((result.mask * 255).round().byte().numpy())
        save_png(path, gray.resize(inversion.size[::-1], Image.Resampling.NEAREST))
        yield path, f"where it may act: {result.mask.mean():.0%} of the picture"
    for word, attention in result.attention.items():
        path = folder / f"{name}-attention-{slug(word)}.png"
        save_png(path, heat_over(result.picture, attention))
        yield path, f"where {word!r} is looked at"
    write_text(folder / f"{name}.json", json.dumps(facts, indent=2) + "\n")


def _text(result: EditResult, inversion: Inversion, facts: Mapping[str, Any]) -> dict[str, str]:
    """The text that the PNG of an edit carries: its prompts, its settings and this program's version."""
    return {
        "prompt": result.edit.prompt,  # ``fit`` on this file finds it there
        "source_prompt": inversion.prompt,
        "settings": json.dumps(facts, ensure_ascii=False),
        "Software": f"nulltext {__version__}",
    }


def _sheets(
    job: Job, inversion: Inversion, edited: Edited, original: Tensor | None
) -> Iterator[tuple[Any, str, str]]:
    """The strip of all edits, or of a sweep a grid for each prompt: the sheet, its label, what it shows."""
    results = edited.results
    if not job.swept:
        first = [("original", inversion.prompt, to_image(original))] if original is not None else []
        first.append(("reconstruction", "" if first else inversion.prompt, to_image(edited.reconstruction)))
        edits = [
            (f"{r.edit.kind}, w {r.edit.guidance_scale:g}", r.edit.prompt, to_image(r.picture))
            for r in results
        ]
        yield strip([*first, *edits]), "strip", "all edits side by side"
        return
    (down, rows), *rest = job.swept.items()
    across, columns = rest[0] if rest else ("", [])
    size = len(rows) * max(1, len(columns))
    for k in range(0, len(results), size):
        pictures = [to_image(r.picture) for r in results[k : k + size]]
        labels = [f"{across} {value:g}" for value in columns] or [""]
        title, values = results[k].edit.prompt, [f"{down} {value:g}" for value in rows]
        yield grid(title, values, labels, pictures), "sweep", f"all values of {' and '.join(job.swept)}"


def _facts(result: EditResult, inversion: Inversion, path: Path) -> dict[str, Any]:
    """The settings that an edit was made with."""
    mask = result.edit.mask
    return {
        **{f.name: getattr(result.edit, f.name) for f in dataclasses.fields(Edit)},
        "mask": None if mask is None else "tensor" if isinstance(mask, Tensor) else str(mask),
        "verdict": {change: round(margin, 4) for change, margin in result.verdict.items()},
        "masked_share": None if result.mask is None else round(float(result.mask.mean()), 4),
        "inversion": str(path),
        "source_prompt": inversion.prompt,
        "model": inversion.model,
        "fingerprint": inversion.fingerprint,
        "steps": inversion.steps,
        "nulltext": __version__,
    }


def slug(text: str) -> str:
    """Words as a file's name: letters, digits and dashes, at most 80 bytes, since names end at 255."""
    name = re.sub(r"[^\w]+", "-", text.lower()).strip("-").encode()[:80].decode(errors="ignore")
    return name.strip("-") or "edit"


def free_name(folder: Path, name: str) -> str:
    """The name, or the first of name-2, name-3 ... that no file of the folder has."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    return next(n for n in names if not any((folder / f"{n}.{kind}").exists() for kind in ("png", "json")))
