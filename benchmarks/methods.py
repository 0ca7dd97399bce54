"""The methods that are measured side by side: each takes a subject back to noise and to its latents again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from reference import Reference, ddim_scheduler
from subjects import Subject
from torch import Tensor

from nulltext.backbone import Backbone
from nulltext.inversion import InversionSettings, ddim_invert, optimise, sample

PAPER = InversionSettings(
    steps=50,
    inner_steps=10,
    start=0.0,
    fixed_point_iterations=0,
    tolerance=0.0,
    early_stop_loss=1e-5,
    early_stop_growth=2e-5,
)
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

    z_0: Tensor  # (1, 4, h, w)
    null: Tensor | None = None  # (T, L, d)


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
    return Outcome(z_0, torch.cat(learned))


def run_ours(backbone: Backbone, subject: Subject, steps: int | None, settings: InversionSettings) -> Outcome:
    """Null-text inversion with some settings."""
    schedule = backbone.schedule(steps or settings.steps)
    k = settings.fixed_point_iterations
    pivot = ddim_invert(backbone, schedule, subject.z_0, subject.cond, fixed_point_iterations=k)
    done = list(optimise(backbone, schedule, pivot, subject.cond, settings))
    return Outcome(done[-1][0].z, torch.cat([null for _, null in done]))


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
    "paper": (partial(run_ours, settings=PAPER), PAPER.steps),
    "default": (partial(run_ours, settings=DEFAULT), DEFAULT.steps),
    "ddim": (partial(run_without_optimisation, negative_prompt=False), 50),
    "negative_prompt": (partial(run_without_optimisation, negative_prompt=True), 50),
}
SLOW = ("reference", "paper")
