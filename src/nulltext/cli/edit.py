"""The verb ``edit``: changes inverted pictures with words; the files lie beside the inversion.

Every mistake is a ``UserError``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from nulltext.cli.jobs import Job, find_inversion, find_jobs, on_the_command_line
from nulltext.cli.options import combine, pick
from nulltext.cli.parser import read_options
from nulltext.cli.words import Listed, gather
from nulltext.editing import Edit, Edited, edit
from nulltext.editing.output import Pictures, write_edits
from nulltext.editing.paste import read_photo
from nulltext.editing.phrases import Changes
from nulltext.errors import UserError
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.loading import LoadingOptions, check_model, load_model
from nulltext.models.shipped import NAMES
from nulltext.pixels import from_image

DESCRIPTION = "Changes an inverted picture with words; nothing is optimised again."
REPEATED = tuple(
    Listed(f"--{option}", example, greedy=False)
    for option, example in {
        "prompt": "'a photo of a horse'",
        "attention": "horse",
        "swap": "sheep:horse",
        "remove": "barn",
        "set": "'at night'",
        "add": "'a red hat'",
    }.items()
)
MAX_VARIANTS = 20
NO_OPTIONS = ("pretrained", "gradient_checkpointing")  # --model names the model; edits have no gradients


@dataclass(frozen=True)
class EditRun:
    """Which picture is edited, by which model, and what is written; an edit's own options are the fields of ``Edit``.

    Args:
        inversion: A run's folder (lightning_logs/version_0), a picture's folder in it, or an inversion.safetensors.
        prompt: The target prompt: what the picture shows after the edit; may be given many times.
        edits: A YAML of edits: a list of {prompt, kind, ...}, or {picture, edits: [...]}, or a list of these.
        method: The method of fit that reproduces the source while it is edited, or its import path; by default the one
            that inverted it. Not every inversion file can serve every method.
        photo: The photograph that was inverted: each edit is also put back into it, at its full size.
        variants: Number of variants of each edit, each from other noise; 3 means --seed 1,2,3.
        attention: A word of either prompt; one more picture shows where the model attends to it. May be given again.
        model: The model's folder or hub id, if it is elsewhere now than the inversion file says.
        precision: 32-true, bf16-mixed or 16-mixed.
        device: cpu, cuda, cuda:1, mps; auto takes the first GPU there is.
        batch_size: How many edits are computed at once.
        tensorboard: Also shows the edits in TensorBoard.
    """

    inversion: Path | None = None
    prompt: list[str] | None = None
    edits: Path | None = None
    method: str | None = None
    photo: Path | None = None
    variants: int | None = None
    attention: list[str] | None = None
    model: str | None = None
    precision: str | int = "32-true"
    device: str = "auto"
    batch_size: int = 8
    tensorboard: bool = False


def main(words: Sequence[str]) -> int:
    """Runs the verb: edits and writes, and prints each file with what it shows; returns 0."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"nulltext: note: {message}")
        jobs, options = read(words)
        inversions = [Inversion.load(job.path) for job in jobs]
        photos = [options.photo and read_photo(options.photo, inversion) for inversion in inversions]
        model = load_for(inversions, options)
        for job, inversion, photo in zip(jobs, inversions, photos, strict=True):
            edited, original = make(job, inversion, model, options)
            settings = {"method": options.method or inversion.method}
            pictures, tensorboard = Pictures(original, photo), options.tensorboard
            for path, text in write_edits(
                job, inversion, edited, pictures, settings, tensorboard=tensorboard
            ):
                print(f"{path}  {text}")
    return 0


def read(words: Sequence[str]) -> tuple[list[Job], Any]:
    """The edits that words ask for, and the options of the run."""
    kinds = (EditRun, Changes, Edit, LoadingOptions)
    kind = combine("Edit", *kinds, leave_out=NO_OPTIONS, retype=on_the_command_line)
    options: Any = read_options(kind, gather(words, *REPEATED), "main.py edit", DESCRIPTION)
    edits = {field.name: getattr(options, field.name) for field in fields(Edit) if field.name != "prompt"}
    if options.variants is not None:
        edits["seed"] = seeds(options.variants, options.seed)
    return find_jobs(options.inversion, target_prompts(options), options.edits, edits), options


def make(job: Job, inversion: Inversion, model: DiffusionModel, options: Any) -> tuple[Edited, Tensor | None]:
    """The edits of a job, and the picture that was inverted where it lies beside its inversion."""
    original = read_original(job.path.parent / "original.png", inversion.size)
    chosen = {name: getattr(options, name) for name in ("method", "batch_size")}
    attention = options.attention or ()
    return edit(model, inversion, job.edits, original=original, attention=attention, **chosen), original


def seeds(variants: int, seed: Any) -> str:
    """The seeds of so many variants."""
    if seed is not None or not 1 <= variants <= MAX_VARIANTS:
        raise UserError(f"give --variants from 1 to {MAX_VARIANTS}, or the seeds themselves: --seed 1,2,3")
    return ",".join(str(k + 1) for k in range(variants))


def target_prompts(options: Any) -> list[str]:
    """The prompts as they were given, or the one that --swap, --remove, --set and --add make of the source prompt."""
    changes, prompts = pick(Changes, options), list(options.prompt or [])
    if changes == Changes():
        return prompts
    if prompts or options.edits is not None:
        raise UserError("give either --prompt or --edits, or --swap, --remove, --set and --add")
    if options.inversion is None:
        return [""]  # the error says that the picture is missing
    source = Inversion.load(find_inversion(options.inversion)).prompt
    target = changes.apply(source)
    print(f"source prompt: {source}\ntarget prompt: {target}", flush=True)
    return [target]


def load_for(inversions: Sequence[Inversion], options: Any) -> DiffusionModel:
    """The model that inversions were made with, from the same weight files."""
    sources = {(options.model or i.model, i.variant, i.revision, i.family) for i in inversions}
    if len(sources) > 1:
        names = " and ".join(sorted({str(name) for name, *_ in sources}))
        raise UserError(f"these inversions were made with {names}; edit them one by one")
    ((name, *made_with),) = sources
    files = {
        key: getattr(options, key) or theirs
        for key, theirs in zip(("variant", "revision", "family"), made_with, strict=True)
    }
    try:
        check_model(name, **files)
    except UserError as error:
        if options.model or name in NAMES:
            raise
        raise UserError(f"{error}; if the model is elsewhere now, give --model FOLDER") from None
    loading = replace(pick(LoadingOptions, options), **files)
    return load_model(name, loading, options.device, precision=options.precision)


def read_original(path: Path, size: tuple[int, int]) -> Tensor | None:
    """The picture that was inverted (3, H, W) in [-1, 1], where it lies beside its inversion in that size."""
    try:
        with Image.open(path) as image:
            return from_image(image) if (image.height, image.width) == size else None
    except (OSError, ValueError):
        return None
