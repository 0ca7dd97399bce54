"""Which pictures a run folder holds already, by what is in them and by the settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nulltext.artifact import read_facts
from nulltext.errors import UserError
from nulltext.inversion_settings import choices, default_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from nulltext.backbone import Backbone
    from nulltext.inversion_settings import InversionSettings

ARTIFACT = "inversion.safetensors"
DECIDING = ("source_sha256", "prompt", "size", "crop", "fingerprint", "timesteps", "settings")
"""What an inversion says of itself that another would have to share to come out the same."""


def finished_names(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Which pictures need no inversion any more, and which need another name for theirs.

    A picture is known by what is in it and by what decides its inversion (``DECIDING``), not by its file's name: one
    that was renamed since is done all the same. Only headers are read. ``inversion.safetensors`` is the last file
    that is written of a picture, so where it is, the rest is too.

    Args:
        folder: The run folder, which need not be there.
        wanted: For each picture's name what its inversion will say of itself.

    Returns:
        The names that are done, and those of the rest whose folder holds another picture.
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


def will_say(
    backbone: Backbone,
    settings: InversionSettings,
    sha256: str,
    prompt: str,
    size: tuple[int, int],
    crop: str,
    optimizer: Callable[[Iterable[Any]], Optimizer] = default_optimizer,
) -> dict[str, Any]:
    """What the inversion of a picture will say of itself, as far as ``DECIDING`` asks.

    Args:
        backbone: The model.
        settings: The choices of the inversion.
        sha256: Of the picture's file.
        prompt: What it shows.
        size: (height, width) in pixels that it is brought to.
        crop: The rule by which it is cut.
        optimizer: Makes the optimiser of a timestep from its parameters.
    """
    return {
        "source_sha256": sha256,
        "prompt": prompt,
        "size": list(size),
        "crop": crop,
        "fingerprint": backbone.fingerprint,
        "timesteps": backbone.schedule(settings.steps).timesteps.tolist(),
        "settings": choices(backbone, settings, optimizer),
    }


def is_finished(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether an inversion is there and says of itself what is wanted."""
    return path.is_file() and _key(_facts(path)) == _key(facts)


def _facts(path: Path) -> dict[str, Any]:
    """What an inversion says of itself; nothing where the file is damaged, so that it is made again."""
    try:
        return read_facts(path)
    except UserError:
        return {}


def _key(facts: Mapping[str, Any]) -> str:
    return json.dumps([facts.get(name) for name in DECIDING], sort_keys=True, default=str)
