"""The ways to edit that a benchmark compares: each makes an ``Edit`` of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nulltext.editing import Edit
from nulltext.editing.kinds import find_kind
from nulltext.editing.tokens import has_word, tokenize
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Task
from nulltext.evaluation.settings import WAYS, PublishedEdit

BLEND_START = 0.2
"""Share of the steps after which Prompt-to-Prompt's local blend sets in, in the reference code."""


@dataclass(frozen=True)
class Editing:
    """What ways of editing know besides the task."""

    tokenizer: Any
    published: PublishedEdit
    guidance_scale: float
    complain: Callable[[Task, str], None]  # says what is wrong with a task

    def edit(self, way: str, task: Task) -> Edit:
        """A task's edit."""
        prompt = str(task.target_prompt)
        if way == "default":
            return Edit(prompt)
        if way == "plain":
            return self._open(prompt, kind="plain", local_blend=None)
        if way == "prompt_to_prompt":
            return self._published(task, prompt)
        return Edit(prompt, kind=way)

    def _open(self, prompt: str, **options: Any) -> Edit:
        """An edit with w and null text of the inversion throughout."""
        w = self.guidance_scale
        return Edit(prompt, guidance_scale=w, null="learned", detail_steps=0, keep_pixels=False, **options)

    def _published(self, task: Task, prompt: str) -> Edit:
        """Prompt-to-Prompt as PIE-Bench's figures were made: refine, reweight and blend."""
        chosen, words = self.published, task.blend
        for word, where in zip(words or (), (task.prompt, prompt), strict=False):
            if not has_word(tokenize(self.tokenizer, where), word):
                self.complain(task, f"its blend word {word!r} is not in {where!r}; edited without a blend")
                words = None
        return self._open(
            prompt,
            kind="refine",
            cross_replace=chosen.cross_steps,
            self_replace=chosen.self_steps,
            equalizer={words[1]: chosen.equalizer} if words else {},
            local_blend=list(words) if words and chosen.blend else None,
            threshold=chosen.threshold,
            max_pool=chosen.max_pool,
            start=BLEND_START,
        )


def check_way(way: str) -> None:
    """Refuses what is neither a way nor the import path of a kind.

    Raises:
        UserError: It is neither.
    """
    if way not in WAYS:
        if "." not in way:
            raise UserError(
                f"--editing {way!r} is not one of {', '.join(WAYS)}; or give the import path of a kind of edits"
            )
        find_kind(way)
