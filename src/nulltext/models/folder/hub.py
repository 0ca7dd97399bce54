"""From what the user names to a folder on disk: shipped, local, or downloaded from the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nulltext.errors import UserError, first_line
from nulltext.models.shipped import NAMES, check_shipped, shipped_folder

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
XL_KEY = "conditioner.embedders.1"  # in the header of a single SDXL checkpoint
NO_HUB = {
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
}


def find_folder(pretrained: str, variant: str | None = None, revision: str | None = None) -> Path:
    """The folder of a model, downloaded to the hub's cache where it is a hub id; an existing path never is.

    Raises:
        UserError: No such model, or a single checkpoint file.
    """
    if pretrained in NAMES:
        return check_shipped(shipped_folder(pretrained))
    path = Path(pretrained).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(_about_file(path))
    if not HUB_ID.fullmatch(pretrained):
        raise UserError(
            f"there is no model folder {pretrained}; if it was moved, say where it is: --model.pretrained FOLDER "
            "(or farmyard, farmyard-flow, or a hub id like owner/name)"
        )
    return _download(pretrained, variant, revision)


def _about_file(path: Path) -> str:
    """What to do with a single checkpoint file."""
    if path.suffix != ".safetensors":
        return (
            f"{path} is a file, and {path.suffix or 'such a file'} is no safetensors; give --model.pretrained a "
            "diffusers folder"
        )
    pipeline = "StableDiffusionXLPipeline" if _is_xl(path) else "StableDiffusionPipeline"
    return (
        f"{path} is a single checkpoint file, without the configs and the tokenizer of its model; convert it once, "
        f'where the hub can be reached: python -c "from diffusers import {pipeline} as P; '
        f"P.from_single_file('{path}').save_pretrained('{path.with_suffix('')}')\", then give "
        f"--model.pretrained {path.with_suffix('')}"
    )


def _is_xl(path: Path) -> bool:
    """Whether the header of a safetensors file names SDXL's second text encoder."""
    try:
        with path.open("rb") as file:
            length = min(int.from_bytes(file.read(8), "little"), 100_000_000)
            return any(key.startswith(XL_KEY) for key in json.loads(file.read(length)))
    except (OSError, ValueError):
        return False


def _download(pretrained: str, variant: str | None, revision: str | None) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(
            DiffusionPipeline.download(pretrained, variant=variant, revision=revision, use_safetensors=True)
        )
    except Exception as error:
        raise UserError(_about_hub(pretrained, error)) from None


def _about_hub(pretrained: str, error: BaseException) -> str:
    """Why the hub gives no such model, and what to type."""
    names: set[str] = set()
    cause: BaseException | None = error
    while cause is not None:
        names |= {kind.__name__ for kind in type(cause).__mro__}
        cause = cause.__cause__ or cause.__context__
    where = f"there is no folder {pretrained} here, and the hub"
    if "GatedRepoError" in names:
        return f"{where}'s model of that name is gated; accept its terms on its page, then: hf auth login"
    if "RepositoryNotFoundError" in names:
        return (
            f"{where} has none of that name; check --model.pretrained (a private model needs: hf auth login)"
        )
    if NO_HUB & names:
        get = f"hf download {pretrained} --local-dir FOLDER"
        return f"{where} cannot be reached; where it can, run {get}, and give --model.pretrained FOLDER"
    return (
        f"{where} does not give it ({first_line(error)}); check --model.pretrained, --model.variant and "
        "--model.revision"
    )
