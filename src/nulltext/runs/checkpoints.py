"""Checkpoints: read without trust, chosen by the rank that goes on from them, refused where the run is another."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.errors import UserError
from nulltext.inversion import InversionMethod, name_of
from nulltext.models.base import DiffusionModel
from nulltext.runs.folder import LAST

OPTIONS = {
    "optimizer_class": "--model.optimizer",
    "learning_rate": "--model.optimizer.lr",
    "precision": "--trainer.precision",
}  # where the option is not --model.NAME


def rank_checkpoint(rank: int) -> str:
    """Where a rank keeps its checkpoint in the run folder."""
    return LAST if rank == 0 else LAST.replace("last", f"last-{rank}")


def choose_checkpoint(path: Path, rank: int, mine: Iterable[tuple[str, str]]) -> Path | None:
    """The checkpoint of a run that a rank can go on from: its own, or another's whose pictures are the rank's now.

    ``mine`` is name and sha256 of each. None: the rank has to start its next picture from the beginning.
    """
    known = set(mine)
    own = path.parent / Path(rank_checkpoint(rank)).name
    for candidate in (own, *sorted(path.parent.glob("last*.ckpt"))):
        try:
            pictures = read_checkpoint(candidate)["nulltext"]["pictures"] if candidate.is_file() else []
        except UserError:
            continue
        if pictures and all((picture["name"], picture["sha256"]) in known for picture in pictures):
            return candidate
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nulltext, checked. Runs no code from it, and takes no more memory than the file is long."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        # torch writes its archives uncompressed; a compressed one could unfold to any size
        compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise UserError(
                f"{path} is not as torch writes a checkpoint; leave --ckpt_path out to start again"
            )
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _check_parts(checkpoint)
    except UserError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds for a damaged file
        raise UserError(
            f"{path} is damaged or no checkpoint; leave --ckpt_path out to start again"
        ) from error
    return checkpoint


def _check_parts(checkpoint: Any) -> None:
    """Refuses what could not have come from ``module.on_save_checkpoint``; a KeyError or TypeError says so too."""
    facts = checkpoint["nulltext"]
    good = (
        {"state_dict", "loops"} <= checkpoint.keys()
        and _is_whole(checkpoint)
        and all(isinstance(facts[name], dict) for name in ("settings", "cost", "memory"))
        and all(isinstance(facts[name], str) for name in ("model", "fingerprint"))
        and all(isinstance(p[name], str) for p in facts["pictures"] for name in ("name", "sha256", "prompt"))
    )
    if not good:
        raise ValueError("not a checkpoint of nulltext")


def _is_whole(value: Any) -> bool:
    """Whether the numbers of all tensors are there one by one: strides of 0 make terabytes out of one number."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(_is_whole(item) for item in inner)


def checkpoint_facts(model: DiffusionModel, method: InversionMethod, pretrained: str) -> dict[str, Any]:
    """The model and the settings of a run, in plain types."""
    settings = {"method": name_of(method), **method.describe(model)}
    return {"model": pretrained, "fingerprint": model.fingerprint, "settings": settings}


def check_facts(checkpoint: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The facts of a checkpoint, refused where the program, the model or the settings are others."""
    facts = checkpoint.get("nulltext")
    if not isinstance(facts, dict) or "state_dict" not in checkpoint:
        raise UserError("the checkpoint is not one of nulltext; give checkpoints/last.ckpt of a run, or none")
    if facts["fingerprint"] != ours["fingerprint"]:
        raise UserError(
            f"the checkpoint was made with the model {facts['model']}, not with {ours['model']}; "
            f"give --model.pretrained {facts['model']}, or leave --ckpt_path out"
        )
    for name, value in ours["settings"].items():
        theirs, option = facts["settings"].get(name), OPTIONS.get(name, f"--model.{name}")
        if theirs != value:
            raise UserError(
                f"the checkpoint was made with {name} {theirs}, not {value}; give {option} {theirs}, "
                "or leave --ckpt_path out"
            )
    return facts


def refuse_others(saved: list[dict[str, Any]], pictures: Sequence[Picture]) -> None:
    """Refuses pictures other than those of the checkpoint."""
    if saved != identities(pictures):
        raise UserError(
            f"the checkpoint is of {_names(saved)}, not of {_names(identities(pictures))}; "
            "give the same --data as then, or leave --ckpt_path out"
        )


def identities(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """What tells pictures and their prompts apart, in plain types."""
    return [
        {
            **{name: getattr(picture, name) for name in ("name", "sha256", "prompt")},
            "size": list(picture.pixels.shape[-2:]),
            "crop": str(picture.crop),
        }
        for picture in pictures
    ]


def _names(saved: list[dict[str, Any]]) -> str:
    return ", ".join(f"{p['name']} ({p['prompt']!r}, {p['size'][1]}x{p['size'][0]})" for p in saved)
