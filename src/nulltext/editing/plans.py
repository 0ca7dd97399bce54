"""Resolves edits against a model and a source: options left open, attention control, masks, the noise to start from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from nulltext.data.prompts import weights_note
from nulltext.editing.kinds import WINDOW, name_of
from nulltext.editing.kinds.base import RowControl
from nulltext.editing.kinds.controls import AttentionControl
from nulltext.editing.noise import other_noise
from nulltext.editing.options import AUTO, Edit
from nulltext.editing.phrases import note_on
from nulltext.editing.regions import REGIONS, Context, Region, Source, regions_of
from nulltext.editing.regions.noise_difference import noise_difference
from nulltext.editing.tokens import Tokens, find_word, has_word, tokenize
from nulltext.errors import UserError
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

GENTLE = 1.5
"""The guidance scale that a judged edit under a mask is tried with first."""


@dataclass(frozen=True)
class Choice:
    """An edit with everything that it left open chosen; the network was not evaluated for it."""

    edit: Edit  # as it was given
    taken: Edit  # with what was chosen
    source: Tokens
    target: Tokens
    control: RowControl
    same: bool  # the source's own prompt: the edit is the reconstruction
    held: bool  # its steps are tied to the source's, so it starts from no other noise


@dataclass(frozen=True)
class Plan:
    """An edit brought to tensors."""

    choice: Choice
    edit: Edit  # as it is taken
    text: Conditioning  # its prompt, one row
    context: Context
    found: Tensor | None  # (h, w), what is found before the first step
    following: list[Region]  # what is found from attention maps, step by step
    bound: Tensor | None  # (h, w), the mask that was given
    start: Tensor  # (1, C, h, w), the noise that it starts from

    def mask(self, attention: AttentionControl | None, row: int = 0) -> Tensor | None:
        """The mask now (h, w): the union of its regions, within the given mask; None while there is none."""
        context = replace(self.context, attention=attention, row=row)
        found = _union([self.found, *(region.find(context) for region in self.following)])
        if found is None or self.bound is None:
            return self.bound if found is None else found
        return found * self.bound

    def everywhere(self) -> Plan:
        """The same free to act in the whole picture, as a threshold of 0 makes it."""
        assert self.found is not None
        return replace(self, edit=replace(self.edit, threshold=0.0), found=torch.ones_like(self.found))

    def reseeded(self, seed: int) -> Plan:
        """The same from other noise inside the mask."""
        start = other_noise(self.start, self.mask(None), seed)
        return replace(self, edit=replace(self.edit, seed=seed), start=start)


@dataclass(frozen=True)
class EditResult:
    """What became of an edit."""

    edit: Edit  # with everything that was left open as it was taken
    picture: Tensor  # (3, H, W) in [-1, 1]
    latents: Tensor  # (C, h, w), what the picture was decoded from
    mask: Tensor | None  # (h, w) over the latents, at the last step; None where the edit acted everywhere
    attention: dict[str, Tensor]  # of each wanted word: where it was looked at, (h', w'), mean over the steps
    verdict: Mapping[str, float] = field(default_factory=dict)  # of each change: above 0 where a CLIP sees it


def choose(
    model: DiffusionModel,
    inversion: Inversion,
    edits: Sequence[Edit],
    judged: Sequence[bool],
    attention: Sequence[str],
    held: bool,
) -> list[Choice]:
    """Settles what edits leave open; ``judged``: which have a judge; ``held``: their steps are tied to the source's.

    UserError for words that no prompt has, prompts that do not suit the kind, other noise where edits are held.
    """
    prompts = dict.fromkeys(edit.prompt for edit in edits)
    for note in (n for p in prompts for n in (weights_note(p), note_on(inversion.prompt, p)) if n):
        warnings.warn(note, stacklevel=3)
    source, choices = tokenize(model.tokenizer, inversion.prompt), []
    for edit, has_judge in zip(edits, judged, strict=True):
        target = tokenize(model.tokenizer, edit.prompt)
        if held and edit.seed is not None:
            raise UserError(
                "by this method an edit starts from the source's own latents; leave out seed, or give --method ddim"
            )
        for word in (*attention, *edit.blend_words):
            find_word(source if has_word(source, word) else target, word)
        same = target.ids == source.ids and not edit.equalizer
        taken = _taken(edit, source, target, inversion.guidance_scale, gently=has_judge and not same)
        control = taken.control_kind().control(source, target, inversion.steps)
        choices.append(Choice(edit, taken, source, target, control, same, held))
    return choices


def _taken(edit: Edit, source: Tokens, target: Tokens, guidance_scale: float, gently: bool) -> Edit:
    """The edit with everything that it leaves open chosen.

    Gently: under a mask, with a judge that says when more is needed, it starts from little guidance and no attention
    control. Otherwise it is Prompt-to-Prompt as published.
    """
    gently = gently and edit.masked
    window = 0.0 if gently and edit.kind == AUTO and not edit.equalizer else WINDOW
    chosen: dict[str, Any] = {
        "guidance_scale": GENTLE if gently else guidance_scale,
        "cross_replace": window,
        "self_replace": window,
        "null": "empty" if gently else "learned",
    }
    left_open = {name: value for name, value in chosen.items() if getattr(edit, name) in (None, AUTO)}
    taken = replace(edit, **left_open)
    kind = taken.control_kind()
    if edit.kind == AUTO and kind.cross_replace == 0 and kind.self_replace == 0 and not kind.equalizer:
        return replace(taken, kind="plain")
    acting = kind.chosen(source, target)
    return taken if acting is kind else replace(taken, kind=name_of(type(acting)))


def prepare(source: Source, choices: Sequence[Choice], batch_size: int) -> list[Plan]:
    """Texts, masks and starting noises of edits; the model sees ``batch_size`` of them at a time."""
    texts = source.model.embed([c.edit.prompt for c in choices], source.inversion.size)
    known: dict[int, Tensor] = {}

    def difference(k: int) -> Tensor:
        """The noise differences (n, h, w) of edit k; those of all automatic masks are computed with the first."""
        automatic = [n for n, c in enumerate(choices) if AUTO in c.edit.blends]
        wanted = automatic if k in automatic else [k]
        for n in range(0, len(wanted), batch_size) if k not in known else ():
            some = wanted[n : n + batch_size]
            prompts, controls = [choices[m].edit.prompt for m in some], [choices[m].control for m in some]
            found = noise_difference(source, texts[torch.tensor(some)], prompts, controls)
            known.update(zip(some, found, strict=True))
        return known[k]

    context = partial(Context, source.inversion, source.size, source.model.device)
    contexts = [context(c.edit, c.source, c.target, partial(difference, k)) for k, c in enumerate(choices)]
    bounds = [REGIONS["given"]().find(context) for context in contexts]
    start, plans = source.trajectory[source.replay.first], []
    for k, choice in enumerate(choices):
        if choice.same:
            prompt = f"the prompt {choice.edit.prompt!r} is the source's own"
            warnings.warn(f"{prompt}: this edit is the reconstruction", stacklevel=3)
        regions = regions_of(choice.edit)
        found = _union([region.find(contexts[k]) for region in regions if not region.follows_attention])
        following = [region for region in regions if region.follows_attention]
        plan = Plan(choice, choice.taken, texts[k : k + 1], contexts[k], found, following, bounds[k], start)
        plans.append(plan if choice.edit.seed is None else plan.reseeded(choice.edit.seed))
    return plans


def _union(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return reduce(torch.maximum, there) if there else None
