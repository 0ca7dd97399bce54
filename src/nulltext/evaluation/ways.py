"""The ways to edit that a benchmark compares: each makes an ``Edit`` of a task."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.editing import Edit, edit
from nulltext.editing.kinds import find_kind
from nulltext.editing.tokens import has_word, tokenize
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Task
from nulltext.evaluation.settings import WAYS, PublishedEdit
from nulltext.inversion.base import InversionMethod
from nulltext.inversion.invert import invert
from nulltext.models.base import DiffusionModel
from nulltext.pixels import as_saved, from_unit

BLEND_START = 0.2
"""Share of the steps after which Prompt-to-Prompt's local blend sets in, in the reference code."""


def check_way(way: str) -> None:
    """Refuses, with a UserError, what is neither a way nor the import path of a kind."""
    if way not in WAYS:
        if "." not in way:
            raise UserError(
                f"--editing {way!r} is not one of {', '.join(WAYS)}; or give the import path of a kind of edits"
            )
        find_kind(way)


def edit_of(
    task: Task,
    way: str,
    guidance_scale: float,
    published: PublishedEdit,
    tokenizer: Any,
    complain: Callable[[str], None],
) -> Edit:
    """A task's edit; ``complain`` is told what is wrong with the task."""
    prompt = str(task.target_prompt)
    if way == "default":
        return Edit(prompt)
    if way not in WAYS:
        return Edit(prompt, kind=way)
    plain = Edit(  # w and null text of the inversion throughout
        prompt,
        kind="plain",
        local_blend=None,
        guidance_scale=guidance_scale,
        null="learned",
        keep_pixels=False,
    )
    if way == "plain":
        return plain
    words = task.blend
    for word, where in zip(words or (), (task.prompt, prompt), strict=False):
        if not has_word(tokenize(tokenizer, where), word):
            complain(f"its blend word {word!r} is not in {where!r}; edited without a blend")
            words = None
    return replace(  # as PIE-Bench's figures were made: refine, reweight and blend
        plain,
        kind="refine",
        cross_replace=published.cross_steps,
        self_replace=published.self_steps,
        equalizer={words[1]: published.equalizer} if words else {},
        local_blend=list(words) if words and published.blend else None,
        threshold=published.threshold,
        max_pool=published.max_pool,
        start=BLEND_START,
    )


def take_back(
    model: DiffusionModel,
    task: Task,
    method: InversionMethod,
    way: str,
    picture: Tensor,
    published: PublishedEdit,
    times: int = 1,
) -> Tensor:
    """An edit (3, H, W) in [0, 1] taken back: inverted under the target prompt, edited to the source prompt.

    More ``times``: then edited to the target prompt and taken back again, each time from the picture before.
    """
    target, blend = str(task.target_prompt), task.blend and task.blend[::-1]
    home = replace(task, prompt=target, target_prompt=task.prompt, blend=blend)
    for leg in [home, *[task, home] * (times - 1)]:
        before = Picture(from_unit(picture), leg.prompt, task.name)
        inversion = invert(model, before, method=method)
        wanted = edit_of(leg, way, inversion.guidance_scale, published, model.tokenizer, lambda problem: None)
        with warnings.catch_warnings(action="ignore"):
            edited = edit(model, inversion, wanted, method=method, original=before.pixels)
        picture = as_saved(edited.results[0].picture)
    return picture
