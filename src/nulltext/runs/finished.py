"""Finds finished pictures to skip, by content hash and settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nulltext.errors import UserError
from nulltext.inversion import InversionMethod, name_of
from nulltext.inversion.reading import read_facts
from nulltext.models.base import DiffusionModel

ARTIFACT = "inversion.safetensors"
DECIDING = ("source_sha256", "prompt", "size", "crop", "fingerprint", "timesteps", "settings", "method")
"""What two inversions must have in common to come out the same."""


def finished_names(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Which pictures are finished, and which of the others need another name.

    A picture is known by its content and by what decides its inversion (``DECIDING``), not by its file's name: one
    that was renamed is finished all the same. Only headers are read. ``inversion.safetensors`` is written last, so
    where it is, the rest is too.

    Args:
        folder: The run folder, which may be absent.
        wanted: For the name of each picture, the ``DECIDING`` facts of its inversion.

    Returns:
        The names that are finished, and those of the rest whose folder holds another picture.
    """
    made = {path.parent.name: _facts(path) for path in sorted(folder.glob(f"*/{ARTIFACT}"))}
    keys = {name: _key(facts) for name, facts in wanted.items()}
    done = {name for name, key in keys.items() if name in made and _key(made[name]) == key}
    spare = Counter(_key(facts) for name, facts in made.items() if name not in done)
    for name in [name for name in keys if name not in done]:
        if spare[keys[name]]:
            spare[keys[name]] -= 1
            done.add(name)
    taken = {
        name
        for name, facts in wanted.items()
        if name in made
        and name not in done
        and made[name].get("source_sha256") not in (None, facts["source_sha256"])
    }
    return done, taken


def expected_facts(model: DiffusionModel, method: InversionMethod, size: tuple[int, int]) -> dict[str, Any]:
    """What inversions of pictures of (height, width) will hold of ``DECIDING``; the picture decides the rest."""
    return {
        "fingerprint": model.fingerprint,
        "timesteps": method.schedule(model, size).t.tolist(),
        "size": list(size),
        "settings": method.describe(model),
        "method": name_of(method),
    }


def is_finished(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether an inversion with these facts is there."""
    return path.is_file() and _key(_facts(path)) == _key(facts)


def _facts(path: Path) -> dict[str, Any]:
    """The facts of an inversion; none where the file is damaged, so that it is made again."""
    try:
        return read_facts(path)
    except UserError:
        return {}


def _key(facts: Mapping[str, Any]) -> str:
    facts = {"method": "null_text", **facts}  # older files do not name their method
    return json.dumps([facts.get(name) for name in DECIDING], sort_keys=True, default=str)
