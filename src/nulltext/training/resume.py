"""What decides whether a checkpoint may be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nulltext.data.picture import Picture
from nulltext.errors import UserError
from nulltext.inversion import InversionMethod, name_of
from nulltext.models.base import DiffusionModel

OPTIONS = {
    "optimizer_class": "--model.optimizer",
    "learning_rate": "--model.optimizer.lr",
    "precision": "--trainer.precision",
}
"""Where the option is not ``--model.NAME``."""


def checkpoint_facts(model: DiffusionModel, method: InversionMethod, pretrained: str) -> dict[str, Any]:
    """The model and the settings of a run, in plain types."""
    settings = {"method": name_of(method), **method.describe(model)}
    return {"model": pretrained, "fingerprint": model.fingerprint, "settings": settings}


def check_facts(checkpoint: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The facts of a checkpoint, which must be those of this run.

    Raises:
        UserError: It is of another program, model, or settings.
    """
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
    """Refuses pictures other than those of the checkpoint.

    Raises:
        UserError: They differ; both are named.
    """
    if saved != identities(pictures):
        raise UserError(
            f"the checkpoint is of {_names(saved)}, not of {_names(identities(pictures))}; "
            "give the same --data as then, or leave --ckpt_path out"
        )


def identities(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """What tells pictures and their prompts apart, in plain types."""
    return [
        {
            "name": picture.name,
            "sha256": picture.sha256,
            "prompt": picture.prompt,
            "size": list(picture.pixels.shape[-2:]),
            "crop": str(picture.crop),
        }
        for picture in pictures
    ]


def _names(saved: list[dict[str, Any]]) -> str:
    return ", ".join(f"{p['name']} ({p['prompt']!r}, {p['size'][1]}x{p['size'][0]})" for p in saved)
