"""Resolves edits against a model and a source: options left open, attention control, masks, the noise to start from."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.editing.kinds import name_of
from nulltext.editing.kinds.controls import AttentionControl, RowControl
from nulltext.editing.noise import calm_detail, other_noise
from nulltext.editing.options import AUTO, Edit
from nulltext.editing.regions import REGIONS, Context, Region, regions_of
from nulltext.editing.regions.noise_difference import noise_difference
from nulltext.editing.tokens import Tokens, find_word, has_word, tokenize
from nulltext.inversion.base import Replay, plain_noise
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning


@dataclass(frozen=True)
class Source:
    """An inverted picture and its replay, from which its edits depart."""

    model: DiffusionModel
    inversion: Inversion
    schedule: Schedule
    cond: Conditioning  # its prompt, one row
    replay: Replay

    @property
    def trajectory(self) -> Tensor:
        """(T + 1, 1, C, h, w), noisiest first; the end is the reconstruction."""
        return self.replay.trajectory

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.trajectory.shape[-2], self.trajectory.shape[-1]


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
        context = dataclasses.replace(self.context, attention=attention, row=row)
        masks = [self.found, *(region.find(context) for region in self.following)]
        found = _union(masks)
        if found is None or self.bound is None:
            return self.bound if found is None else found
        return found * self.bound


def choose(
    model: DiffusionModel, inversion: Inversion, edits: Sequence[Edit], attention: Sequence[str]
) -> list[Choice]:
    """Settles what edits leave open, by what suits the model and the prompts; mistakes surface before the long work.

    Args:
        model: The model.
        inversion: The source.
        edits: The edits.
        attention: Words whose maps are wanted, to be found in the prompts.

    Raises:
        UserError: Words that are not there, prompts that do not suit the kind.
    """
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
    taken = dataclasses.replace(edit, **chosen)
    kind = taken.control_kind()
    acting = kind.chosen(source, target)
    closed = kind.cross_replace == 0 and kind.self_replace == 0 and not kind.equalizer
    name = "plain" if edit.kind == AUTO and closed else edit.kind if acting is kind else name_of(type(acting))
    return dataclasses.replace(
        taken, kind=name, cross_replace=kind.cross_replace, self_replace=kind.self_replace
    )


def prepare(source: Source, choices: Sequence[Choice], batch_size: int) -> list[Plan]:
    """Texts, masks and starting noises of edits.

    Args:
        source: The picture and its replay.
        choices: The edits.
        batch_size: Edits that the model sees at a time.

    Raises:
        UserError: A mask that cannot be read, or is empty.
    """
    model, inversion = source.model, source.inversion
    texts = model.embed([c.edit.prompt for c in choices], inversion.size)
    differences = Differences(source, texts, choices, batch_size)
    contexts = [
        Context(c.edit, c.source, c.target, inversion, source.size, model.device, partial(differences.of, k))
        for k, c in enumerate(choices)
    ]
    bounds = [REGIONS["given"]().find(context) for context in contexts]
    starts = _starts(source, {c.taken.detail_steps or 0 for c in choices})
    return [
        _plan(choice, texts[k : k + 1], contexts[k], bounds[k], starts[choice.taken.detail_steps or 0])
        for k, choice in enumerate(choices)
    ]


def _plan(choice: Choice, text: Conditioning, context: Context, bound: Tensor | None, start: Tensor) -> Plan:
    regions = regions_of(choice.edit)
    found = _union([region.find(context) for region in regions if not region.follows_attention])
    following = [region for region in regions if region.follows_attention]
    made = Plan(choice, choice.taken, text, context, found, following, bound, start)
    if choice.same:
        prompt = f"the prompt {choice.edit.prompt!r} is the source's own"
        warnings.warn(f"{prompt}: this edit is the reconstruction", stacklevel=4)
    if choice.edit.seed is None:
        return made
    return dataclasses.replace(made, start=other_noise(start, made.mask(None), choice.edit.seed))


@dataclass
class Differences:
    """The noise differences of edits to their source, in batches, computed when the first is wanted."""

    source: Source
    texts: Conditioning
    choices: Sequence[Choice]
    batch_size: int
    known: dict[int, Tensor] = field(default_factory=dict)

    def of(self, k: int) -> Tensor:
        """The difference (h, w) of edit k; those of all edits with an automatic mask are computed with it."""
        if k not in self.known:
            automatic = [n for n, c in enumerate(self.choices) if AUTO in c.edit.blends]
            wanted = automatic if k in automatic else [k]
            for n in range(0, len(wanted), self.batch_size):
                some = wanted[n : n + self.batch_size]
                self.known.update(zip(some, self._compute(some), strict=True))
        return self.known[k]

    def _compute(self, some: Sequence[int]) -> Tensor:
        source, controls = self.source, [self.choices[n].control for n in some]
        texts = self.texts[torch.tensor(some)]
        return noise_difference(
            source.model, source.schedule, source.trajectory[-1], source.cond, texts, controls
        )


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
            plain = plain_noise(source.model, source.trajectory[-1], source.cond, steps)
        starts[steps] = calm_detail(noise, plain)
    return starts
