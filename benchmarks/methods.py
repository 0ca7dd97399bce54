"""The inversion methods that are measured side by side. A method and its settings are data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from reference import Reference, ddim_scheduler
from subjects import Subject
from torch import Tensor

from nulltext.inversion import METHODS as KNOWN
from nulltext.inversion import InversionMethod
from nulltext.inversion.invert import run
from nulltext.inversion.methods.ddim import DDIM
from nulltext.inversion.methods.negative_prompt import NegativePrompt
from nulltext.models import DiffusionModel

CONFIGS = Path(__file__).parents[1] / "configs"


def method_of(config: Path) -> InversionMethod:
    """The method and its settings that a config of ``fit`` names."""
    settings = yaml.safe_load(config.read_text())["model"]
    kind = KNOWN[settings.get("method", "null_text")]
    optimizer = settings.get("optimizer")
    if optimizer:
        module, _, name = optimizer["class_path"].rpartition(".")
        settings["optimizer"] = partial(getattr(import_module(module), name), **optimizer["init_args"])
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in settings.items() if key in fields})


class Entry(NamedTuple):
    """A row of the table."""

    title: str
    method: InversionMethod


PAPER = method_of(CONFIGS / "paper.yaml")
DEFAULT = method_of(CONFIGS / "nulltext.yaml")
FAST = method_of(CONFIGS / "fast.yaml")
FLOW = method_of(CONFIGS / "flow.yaml")
PLAIN = {"steps": 50, "fixed_point_iterations": 0, "pivot_tolerance": 0.0}
REFERENCE = "reference"
METHODS: dict[str, Entry] = {
    REFERENCE: Entry("reference, unfrozen, fp32", PAPER),
    "paper": Entry("ours, `paper`", PAPER),
    "default": Entry("ours, the default", DEFAULT),
    "flow": Entry("ours, `flow.yaml`", FLOW),
    "fast": Entry("negative prompt, refined pivot (`fast`)", FAST),
    "ddim": Entry("DDIM", DDIM(**PLAIN)),
    "negative_prompt": Entry("negative prompt", NegativePrompt(**PLAIN)),
}
SLOW = (REFERENCE, "paper")
USUAL_METHODS = [name for name in METHODS if name != "flow"]


@dataclass
class Outcome:
    """Where the guided trajectory ended, and the null embeddings."""

    z_0: Tensor  # (B, C, h, w)
    null: Tensor  # (T, B, L, d)


def run_named(model: DiffusionModel, subject: Subject, name: str, **changed: float) -> Outcome:
    """Inverts a subject with one of ``METHODS``, some of its settings changed."""
    method = dataclasses.replace(METHODS[name].method, **changed)
    return (run_reference if name == REFERENCE else run_method)(model, subject, method)


def run_method(model: DiffusionModel, subject: Subject, method: InversionMethod) -> Outcome:
    """Inverts with our code."""
    state = method.begin(model, subject.z_0, subject.cond)
    run(method, model, state)
    return Outcome(state.z, torch.stack([null.detach() for null in state.null]))


def run_reference(model: DiffusionModel, subject: Subject, method: InversionMethod) -> Outcome:
    """Inverts with the authors' algorithm on the same UNet; of the method's settings only T is read."""
    scheduler, null = ddim_scheduler(model.scheduler_config, method.steps), model.embed("")
    added = None
    if subject.cond.extras:
        added = {"text_embeds": subject.cond.extras["pooled"], "time_ids": subject.cond.extras["time_ids"]}
    theirs = Reference(model.denoiser, scheduler, null.sequence, subject.cond.sequence, added)
    learned, z_0 = theirs.null_optimisation(theirs.ddim_inversion(subject.z_0))
    model.forwards += theirs.forwards
    model.backwards += theirs.backwards
    return Outcome(z_0, torch.stack(learned))
