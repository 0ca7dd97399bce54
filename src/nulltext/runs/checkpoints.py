"""Checkpoints: read without trust, and chosen by the rank that goes on from them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError
from nulltext.runs.folder import LAST


def rank_checkpoint(rank: int) -> str:
    """Where a rank keeps its checkpoint in the run folder."""
    return LAST if rank == 0 else LAST.replace("last", f"last-{rank}")


def choose_checkpoint(path: Path, rank: int, mine: Iterable[tuple[str, str]]) -> Path | None:
    """The checkpoint that a rank can go on from: its own, or another's whose pictures are the rank's now.

    Args:
        path: A checkpoint of the run.
        rank: The rank; the run may have had more of them, or fewer.
        mine: Name and sha256 of each of the rank's pictures.

    Returns:
        The checkpoint, or None where the rank has to start its next picture from the beginning.
    """
    known = set(mine)
    own = path.parent / Path(rank_checkpoint(rank)).name
    for candidate in (own, *sorted(path.parent.glob("last*.ckpt"))):
        pictures = _pictures(candidate)
        if pictures and all((picture["name"], picture["sha256"]) in known for picture in pictures):
            return candidate
    return None


def _pictures(path: Path) -> list[dict[str, Any]]:
    """The pictures that a checkpoint is of; none where there is no such file or it is damaged."""
    try:
        return read_checkpoint(path)["nulltext"]["pictures"] if path.is_file() else []
    except UserError:
        return []


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nulltext, checked. Runs no code from it, and takes no more memory than the file is long.

    Raises:
        UserError: It is damaged, was made to harm, or was written by another program.
    """
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _check_parts(checkpoint)
    except UserError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds for a damaged file
        raise UserError(
            f"{path} is damaged or no checkpoint; leave --ckpt_path out to start again"
        ) from error
    return checkpoint


def _check_archive(path: Path) -> None:
    """Torch writes its archives uncompressed; a compressed one could unfold to any size."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UserError(f"{path} is not as torch writes a checkpoint; leave --ckpt_path out to start again")


def _check_parts(checkpoint: Any) -> None:
    """Refuses what could not have come from ``module.on_save_checkpoint``; a KeyError or TypeError says so too."""
    known = isinstance(checkpoint, dict) and {"nulltext", "state_dict", "loops"} <= checkpoint.keys()
    facts = checkpoint["nulltext"] if known else None
    good = (
        isinstance(facts, dict)
        and isinstance(facts["settings"], dict)
        and isinstance(facts["cost"], dict)
        and all(isinstance(facts[name], str) for name in ("model", "fingerprint"))
        and isinstance(facts["memory"], dict)
        and all(isinstance(p[name], str) for p in facts["pictures"] for name in ("name", "sha256", "prompt"))
    )
    if not good or not all(_is_whole(tensor) for tensor in _tensors(checkpoint)):
        raise ValueError("not a checkpoint of nulltext")


def _is_whole(tensor: Tensor) -> bool:
    """Whether the tensor's numbers are there one by one: strides of 0 make terabytes out of one number."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner: Sequence[Any] = (
        list(value.values())
        if isinstance(value, Mapping)
        else value
        if isinstance(value, list | tuple)
        else []
    )
    return [tensor for item in inner for tensor in _tensors(item)]
