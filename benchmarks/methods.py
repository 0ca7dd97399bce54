"""The methods that are measured side by side: each takes a subject back to noise and to its latents again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from reference import Reference, ddim_scheduler
from subjects import Subject
from torch import Tensor
from torch.optim import Optimizer

from nulltext.backbone import Backbone
from nulltext.inversion import optimise, sample
from nulltext.inversion_settings import InversionSettings, default_optimizer, detail_steps
from nulltext.pivot import ddim_invert
from nulltext.starting_noise import plain_noise

MakeOptimizer = Callable[[Iterable[Any]], Optimizer]


def recipe_of(config: Path) -> tuple[InversionSettings, MakeOptimizer]:
    """The settings and the inner optimiser that a config of ``fit`` gives."""
    model = yaml.safe_load(config.read_text())["model"]
    optimizer = model.pop("optimizer")
    module, _, name = optimizer["class_path"].rpartition(".")
    make = partial(getattr(import_module(module), name), **optimizer["init_args"])
    return InversionSettings(**{k: v for k, v in model.items() if k != "pretrained"}), make


PAPER, PAPER_OPTIMIZER = recipe_of(Path(__file__).parents[1] / "configs/paper.yaml")
DEFAULT = InversionSettings()
TITLES = {
    "reference": "reference, unfrozen, fp32",
    "paper": "ours, `paper`",
    "default": "ours, the default",
    "ddim": "DDIM inversion, guided walk back",
    "negative_prompt": "negative-prompt inversion",
}


@dataclass
class Outcome:
    """Where the guided walk ended, and the null embeddings if any were learned."""

    z_0: Tensor  # (B, 4, h, w)
    null: Tensor | None = None  # (T, B, L, d)


def run_reference(backbone: Backbone, subject: Subject, steps: int) -> Outcome:
    """The authors' algorithm on the same UNet, its weights not frozen."""
    scheduler = ddim_scheduler(backbone.scheduler_config, steps)
    added = None
    if subject.cond.pooled is not None:
        added = {"text_embeds": subject.cond.pooled, "time_ids": subject.cond.time_ids}
    theirs = Reference(backbone.unet, scheduler, subject.null.sequence, subject.cond.sequence, added)
    learned, z_0 = theirs.null_optimisation(theirs.ddim_inversion(subject.z_0))
    backbone.forwards += theirs.forwards
    backbone.backwards += theirs.backwards
    return Outcome(z_0, torch.stack(learned))


def run_ours(
    backbone: Backbone,
    subject: Subject,
    steps: int,
    settings: InversionSettings = DEFAULT,
    optimizer: MakeOptimizer = default_optimizer,
) -> Outcome:
    """Null-text inversion with some settings."""
    schedule = backbone.schedule(steps)
    pivot = ddim_invert(
        backbone,
        schedule,
        subject.z_0,
        subject.cond,
        fixed_point_iterations=settings.fixed_point_iterations,
        pivot_tolerance=settings.pivot_tolerance,
    )
    plain_noise(backbone, subject.z_0, subject.cond, detail_steps(backbone, settings))  # kept for edits
    done = list(optimise(backbone, schedule, pivot, subject.cond, settings, optimizer))
    return Outcome(done[-1][0].z, torch.stack([null for _, null in done]))


def run_without_optimisation(
    backbone: Backbone, subject: Subject, steps: int, negative_prompt: bool
) -> Outcome:
    """Plain DDIM inversion, then the guided walk back under the empty or the source prompt as the null text."""
    schedule = backbone.schedule(steps)
    pivot = ddim_invert(backbone, schedule, subject.z_0, subject.cond)
    null = subject.cond if negative_prompt else subject.null
    return Outcome(sample(backbone, schedule, pivot[0], subject.cond, [null], PAPER.guidance_scale))


Method = Callable[[Backbone, Subject, Any], Outcome]
METHODS: dict[str, tuple[Method, int]] = {  # the method, and its number of steps
    "reference": (run_reference, 50),
    "paper": (partial(run_ours, settings=PAPER, optimizer=PAPER_OPTIMIZER), PAPER.steps),
    "default": (run_ours, DEFAULT.steps),
    "ddim": (partial(run_without_optimisation, negative_prompt=False), 50),
    "negative_prompt": (partial(run_without_optimisation, negative_prompt=True), 50),
}
SLOW = ("reference", "paper")
