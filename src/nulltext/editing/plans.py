"""Resolves edits against a model and a source: options left open, attention control, masks, the noise to start from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from nulltext.data.prompts import weights_note
from nulltext.editing.kinds import name_of
from nulltext.editing.kinds.controls import AttentionControl, RowControl
from nulltext.editing.noise import calm_detail, other_noise
from nulltext.editing.options import AUTO, Edit
from nulltext.editing.regions import REGIONS, Context, Region, Source, regions_of
from nulltext.editing.regions.noise_difference import noise_difference
from nulltext.editing.tokens import Tokens, find_word, has_word, tokenize
from nulltext.inversion.base import plain_noise
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning


@dataclass(frozen=True)
class Choice:
    """An edit with everything that it left open chosen; the network was not evaluated for it."""

    edit: Edit  # as it was given
    taken: Edit  # with what was chosen
    source: Tokens
    target: Tokens
    control: RowControl
    same: bool  # the source's own prompt: the edit is the reconstruction


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
        masks = [self.found, *(region.find(context) for region in self.following)]
        found = _union(masks)
        if found is None or self.bound is None:
            return self.bound if found is None else found
        return found * self.bound


def choose(
    model: DiffusionModel, inversion: Inversion, edits: Sequence[Edit], attention: Sequence[str]
) -> list[Choice]:
    """Settles what edits leave open, by what suits the model and the prompts.

    Raises:
        UserError: Blend words or words of ``attention`` that no prompt has, prompts that do not suit the kind.
    """
    for note in {weights_note(edit.prompt) for edit in edits} - {None}:
        warnings.warn(str(note), stacklevel=3)
    source, choices = tokenize(model.tokenizer, inversion.prompt), []
    for edit in edits:
        target = tokenize(model.tokenizer, edit.prompt)
        for word in (*attention, *edit.blend_words):
            find_word(source if has_word(source, word) else target, word)
        same = target.ids == source.ids and not edit.equalizer
        taken = _taken(edit, source, target, model, same, inversion.guidance_scale)
        control = taken.control_kind().control(source, target, inversion.steps)
        choices.append(Choice(edit, taken, source, target, control, same))
    return choices


def _taken(
    edit: Edit, source: Tokens, target: Tokens, model: DiffusionModel, same: bool, guidance_scale: float
) -> Edit:
    """The edit with everything that it leaves open, by what suits the model and the prompts."""
    suits, masked = model.edit_defaults, edit.masked and not same
    left_open: dict[str, Any] = {
        "guidance_scale": suits.masked_guidance if masked else guidance_scale,
        "detail_steps": 0 if same or edit.compat else suits.detail_steps,
    }
    if masked and edit.kind == AUTO:
        left_open |= {"cross_replace": suits.masked_windows, "self_replace": suits.masked_windows}
    chosen = {name: value for name, value in left_open.items() if getattr(edit, name) is None}
    if edit.null == "auto":
        chosen["null"] = "empty" if masked else "learned"
    taken = replace(edit, **chosen)
    kind = taken.control_kind()
    acting = kind.chosen(source, target)
    closed = kind.cross_replace == 0 and kind.self_replace == 0 and not kind.equalizer
    name = "plain" if edit.kind == AUTO and closed else edit.kind if acting is kind else name_of(type(acting))
    return replace(taken, kind=name, cross_replace=kind.cross_replace, self_replace=kind.self_replace)


def prepare(source: Source, choices: Sequence[Choice], batch_size: int) -> list[Plan]:
    """Texts, masks and starting noises of edits; the model sees ``batch_size`` of them at a time.

    Raises:
        UserError: A mask that cannot be read, or is empty.
    """
    texts = source.model.embed([c.edit.prompt for c in choices], source.inversion.size)
    known: dict[int, Tensor] = {}

    def difference(k: int) -> Tensor:
        """The noise difference (h, w) of edit k; those of all automatic masks are computed with the first."""
        automatic = [n for n, c in enumerate(choices) if AUTO in c.edit.blends]
        wanted = automatic if k in automatic else [k]
        for n in range(0, len(wanted), batch_size) if k not in known else ():
            some = wanted[n : n + batch_size]
            found = noise_difference(source, texts[torch.tensor(some)], [choices[m].control for m in some])
            known.update(zip(some, found, strict=True))
        return known[k]

    context = partial(Context, source.inversion, source.size, source.model.device)
    contexts = [context(c.edit, c.source, c.target, partial(difference, k)) for k, c in enumerate(choices)]
    bounds = [REGIONS["given"]().find(context) for context in contexts]
    starts = _starts(source, {c.taken.detail_steps or 0 for c in choices})
    return [
        _plan(choice, texts[k : k + 1], contexts[k], bounds[k], starts[choice.taken.detail_steps or 0])
        for k, choice in enumerate(choices)
    ]


def _plan(choice: Choice, text: Conditioning, context: Context, bound: Tensor | None, start: Tensor) -> Plan:
    if choice.same:
        prompt = f"the prompt {choice.edit.prompt!r} is the source's own"
        warnings.warn(f"{prompt}: this edit is the reconstruction", stacklevel=4)
    regions = regions_of(choice.edit)
    found = _union([region.find(context) for region in regions if not region.follows_attention])
    following = [region for region in regions if region.follows_attention]
    plan = Plan(choice, choice.taken, text, context, found, following, bound, start)
    seed = choice.edit.seed
    return plan if seed is None else replace(plan, start=other_noise(start, plan.mask(None), seed))


def _union(masks: Sequence[Tensor | None]) -> Tensor | None:
    there = [mask for mask in masks if mask is not None]
    return reduce(torch.maximum, there) if there else None


def _starts(source: Source, all_steps: set[int]) -> dict[int, Tensor]:
    """The noises (1, C, h, w) that edits start from, by ``detail_steps``; stored ones are not made again."""
    inversion, noise, starts = source.inversion, source.trajectory[0], {}
    for steps in all_steps:
        if steps == inversion.detail_steps:
            plain = None if inversion.detail_noise is None else inversion.detail_noise[None].to(noise)
        else:
            begin = inversion.sigmas[0] if inversion.sigmas else 1.0
            plain = plain_noise(source.model, source.trajectory[-1], source.cond, steps, begin)
        starts[steps] = calm_detail(noise, plain)
    return starts
