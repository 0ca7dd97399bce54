"""The options of ``fit`` but for the Trainer's, and their help, which needs no Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser

from nulltext.cli.options import combine
from nulltext.cli.parser import TRAINER_NOTE, OneLineParser
from nulltext.cli.words import Listed, find_value
from nulltext.inversion import InversionMethod, find_method
from nulltext.models.loading import LoadingOptions
from nulltext.training.options import CurveOptions, PictureOptions

DESCRIPTION = "Inverts a picture, or many: learns the null embeddings that make the model reproduce it."
HELP = {
    "device": "cpu, cuda, cuda:1, mps or auto; sets the Trainer's accelerator and devices.",
    "precision": "32-true, bf16-mixed or 16-mixed; sets the Trainer's.",
    "seed_everything": "Seed of all random numbers; the methods of the program draw none.",
    "ckpt_path": "Resumes a stopped run: its checkpoint, its folder, or last.",
}
RESUMING = "A run that was stopped"
IMAGES = Listed("--data.image", "sheep.jpg")


@dataclass(frozen=True)
class MethodChoice:
    """How pictures are inverted.

    Args:
        method: null_text, negative_prompt, ddim, direct, residual, edit_friendly, flow_edit, or the
            import path of a class: my_module.MyMethod.
        init: An inversion.safetensors of the same picture to start from: more inner steps, another guidance scale.
    """

    method: str = "null_text"
    init: Path | None = None


def chosen_method(words: Sequence[str]) -> type[InversionMethod]:
    """The method that the words or their configs name; it decides which options there are."""
    return find_method(str(find_value(words, "model.method") or MethodChoice.method))


def add_options(parser: ArgumentParser, method: type[InversionMethod]) -> None:
    """Data before model before curves: the help is read from the top."""
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_class_arguments(PictureOptions, "data")
    parser.add_class_arguments(combine("Model", LoadingOptions, MethodChoice, method), "model")
    parser.add_class_arguments(CurveOptions, "curves")
    parser.add_argument("--device", type=str | None)
    parser.add_argument("--precision", type=str | int | None)


def describe(parser: Any) -> None:
    """Our line for each option whose help is Lightning's page, or none."""
    for action in parser._actions:
        action.help = HELP.get(action.dest, action.help)
    for group in parser._action_groups:
        if any(action.dest == "ckpt_path" for action in group._group_actions):
            group.title = RESUMING


def help_text(words: Sequence[str]) -> str:
    """What ``fit --help`` prints: all options of ``FitCLI`` but the Trainer's, which are named in a line."""
    parser = OneLineParser(prog="main.py fit", description=DESCRIPTION)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    add_options(parser, chosen_method(words))
    parser.add_argument_group(RESUMING).add_argument("--ckpt_path", type=str | Path | None)
    describe(parser)
    return parser.format_help() + TRAINER_NOTE
