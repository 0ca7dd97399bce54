"""What is settled of edits before their walk: what was left open, attention control, masks, the noise to start from."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nulltext.alignment import (
    Tokens,
    equalizer,
    find_word,
    has_word,
    refine_mapper,
    replace_mapper,
    suits_replace,
    tokenize,
)
from nulltext.artifact import Inversion
from nulltext.attention import AttentionControl, RowControl
from nulltext.backbone import Backbone, EditDefaults, TextEmbedding
from nulltext.blending import automatic_mask, fit_mask, noise_difference, read_mask, word_mask
from nulltext.ddim import Schedule
from nulltext.editing_options import AUTO, Edit, Kind, Window
from nulltext.starting_noise import calm_detail, other_noise, plain_noise

WINDOW = 0.4
"""The share of the steps that see through the source's attention, where nothing else is said."""

WORD_THRESHOLD = 0.3
"""The part of an attention map's maximum over which a pixel belongs to a word (Prompt-to-Prompt's code)."""


@dataclass(frozen=True)
class Source:
    """An inverted picture on its own walk, from which its edits depart."""

    backbone: Backbone
    inversion: Inversion
    schedule: Schedule
    cond: TextEmbedding  # its prompt, one row
    latents: Tensor  # (T + 1, 1, 4, h, w), noisiest first; the end is the reconstruction

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.latents.shape[-2], self.latents.shape[-1]

    @property
    def tokens(self) -> Tokens:
        """The words of its prompt."""
        return tokenize(self.backbone.tokenizer, self.inversion.prompt)


@dataclass(frozen=True)
class Plan:
    """An edit that has been checked and brought to tensors."""

    edit: Edit
    target: TextEmbedding  # one row
    control: RowControl
    fixed_mask: Tensor | None  # (h, w), what auto found
    bound: Tensor | None  # (h, w), the mask that was given
    words: tuple[
        list[tuple[int, ...]], list[tuple[int, ...]]
    ]  # tokens that blend, of the source and the target
    same: bool  # the source's own prompt: the reconstruction is what is wanted
    start: Tensor  # (1, 4, h, w), the noise that the edit starts from

    @property
    def looks(self) -> bool:
        """Whether the mask needs attention maps."""
        return any(self.words)

    def mask(self, control: AttentionControl | None, row: int, size: tuple[int, int]) -> Tensor | None:
        """The mask now (h, w), from all that bear on it; None while there is none."""
        found = self.fixed_mask
        if self.looks and control is not None and control.sums:
            maps = [control.maps(0, tokens) for tokens in self.words[0]]
            maps += [control.maps(row, tokens) for tokens in self.words[1]]
            threshold = WORD_THRESHOLD if self.edit.threshold is None else self.edit.threshold
            seen = word_mask(maps, size, threshold, self.edit.max_pool)
            found = seen if found is None else torch.maximum(found, seen)
        if found is None or self.bound is None:
            return self.bound if found is None else found
        return found * self.bound


def plan_edits(
    source: Source, edits: Sequence[Edit], attention: Sequence[str], batch_size: int
) -> list[Plan]:
    """Everything that is to be known before the walk; what is wrong is said before the long work.

    Args:
        source: The picture, on its own walk.
        edits: What is wanted.
        attention: Words whose maps are wanted, to be found in the prompts.
        batch_size: Edits that ask the model at a time.

    Raises:
        UserError: Words that are not there, prompts that do not suit the kind, an empty mask.
    """
    backbone, tokens, steps = source.backbone, source.tokens, source.schedule.steps
    targets = [tokenize(backbone.tokenizer, edit.prompt) for edit in edits]
    for word in attention:
        for target in targets:
            find_word(tokens if has_word(tokens, word) else target, word)
    sames = [t.ids == tokens.ids and not e.equalizer for e, t in zip(edits, targets, strict=True)]
    taken = [
        _as_taken(e, tokens, t, same, backbone.edit_defaults, source.inversion.guidance_scale)
        for e, t, same in zip(edits, targets, sames, strict=True)
    ]
    controls = [row_control(e, tokens, t, steps) for e, t in zip(taken, targets, strict=True)]
    words = [_blend_words(e, tokens, t) for e, t in zip(edits, targets, strict=True)]
    bounds = [_bound(e, source) for e in edits]
    texts = backbone.embed_prompt([e.prompt for e in edits], source.inversion.size)
    found = _automatic_masks(source, texts, edits, controls, batch_size)
    starts = _starts(source, taken)
    plans = []
    for k, e in enumerate(taken):
        if sames[k]:
            warnings.warn(
                f"the prompt {e.prompt!r} is the source's own: this edit is the reconstruction", stacklevel=3
            )
        elif (mask := found[k]) is not None and not bool(mask.any()):
            warnings.warn(f"{e.prompt!r} asks the model for the same picture: nothing to edit", stacklevel=3)
        start = starts[e.detail_steps or 0]
        plan = Plan(e, texts[k : k + 1], controls[k], found[k], bounds[k], words[k], sames[k], start)
        if e.seed is not None:
            plan = dataclasses.replace(
                plan, start=other_noise(start, plan.mask(None, 0, source.size), e.seed)
            )
        plans.append(plan)
    return plans


def resolve_kind(edit: Edit, source: Tokens, target: Tokens) -> Kind:
    """``plain``, ``replace`` or ``refine``; auto and reweight take whichever of the last two suits the prompts."""
    if edit.kind in ("auto", "reweight"):
        return "replace" if suits_replace(source, target) else "refine"
    return edit.kind


def row_control(edit: Edit, source: Tokens, target: Tokens, steps: int) -> RowControl:
    """The attention control of an edit.

    Raises:
        UserError: The prompts do not suit the kind, or a word of a window or the equalizer is not in the prompt.
    """
    kind = resolve_kind(edit, source, target)
    if kind == "plain":
        return RowControl.nothing(steps, target.length)
    if kind == "replace":
        mapper, mapped = replace_mapper(source, target, compat=edit.compat), torch.ones(target.length)
    else:
        mapper, mapped = refine_mapper(source, target, compat=edit.compat)
    cross = WINDOW if edit.cross_replace is None else edit.cross_replace
    layout = WINDOW if edit.self_replace is None else edit.self_replace
    windows = cross if isinstance(cross, Mapping) else {"default": cross}
    share = _steps_inside(windows.get("default", 0.0), steps)[:, None].repeat(1, target.length).float()
    for word, window in windows.items():
        if word != "default":
            share[:, list(find_word(target, word))] = _steps_inside(window, steps)[:, None].float()
    loudness = equalizer(target, edit.equalizer)
    return RowControl(mapper, mapped, loudness, share, _steps_inside(layout, steps))


def _steps_inside(window: Window, steps: int) -> Tensor:
    """Which of the T steps lie in a window (T,) bool: those whose middle does."""
    start, end = window if isinstance(window, tuple) else (0.0, window)
    middle = (torch.arange(steps) + 0.5) / steps
    return (middle >= start) & (middle < end)


def _as_taken(
    edit: Edit, source: Tokens, target: Tokens, same: bool, suits: EditDefaults, guidance_scale: float
) -> Edit:
    """The edit with everything that it leaves open, by what suits the model and the prompts."""
    masked = edit.masked and not same
    windows = suits.masked_windows if masked and edit.kind == "auto" else WINDOW
    left_open: dict[str, Any] = {
        "cross_replace": windows,
        "self_replace": windows,
        "guidance_scale": suits.masked_guidance if masked else guidance_scale,
        "detail_steps": 0 if same or edit.compat else suits.detail_steps,
    }
    chosen = {name: value for name, value in left_open.items() if getattr(edit, name) is None}
    if edit.null == "auto":
        chosen["null"] = "empty" if masked else "learned"
    taken = dataclasses.replace(edit, kind=resolve_kind(edit, source, target), **chosen)
    closed = taken.cross_replace == 0 and taken.self_replace == 0 and not taken.equalizer
    return dataclasses.replace(taken, kind="plain") if edit.kind == "auto" and closed else taken


def _blend_words(
    edit: Edit, source: Tokens, target: Tokens
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The tokens of the blend words in whichever prompt has them."""
    words = [word for word in edit.blends if word != AUTO]
    for word in words:
        if not has_word(source, word):
            find_word(target, word)
    ours = [find_word(source, word) for word in words if has_word(source, word)]
    return ours, [find_word(target, word) for word in words if has_word(target, word)]


def _bound(edit: Edit, source: Source) -> Tensor | None:
    """The mask that was given (h, w)."""
    if edit.mask is None:
        return None
    if isinstance(edit.mask, Tensor):
        mask = fit_mask(edit.mask, source.size)
    else:
        mask = read_mask(edit.mask, source.inversion.size, source.size)
    return mask.to(source.backbone.device)


def _automatic_masks(
    source: Source,
    texts: TextEmbedding,
    edits: Sequence[Edit],
    controls: Sequence[RowControl],
    batch_size: int,
) -> list[Tensor | None]:
    """The masks of those edits that want one found; an equalizer counts as a difference between the prompts."""
    chosen = [k for k, e in enumerate(edits) if AUTO in e.blends]
    if not chosen:
        return [None] * len(edits)
    rows = [chosen[k : k + batch_size] for k in range(0, len(chosen), batch_size)]
    asked = source.backbone, source.schedule, source.latents[-1], source.cond
    differences = torch.cat([
        noise_difference(*asked, texts[torch.tensor(some)], [controls[k] for k in some]) for some in rows
    ])  # fmt: skip
    found: dict[int, Tensor] = {}
    for row, k in enumerate(chosen):
        found[k] = automatic_mask(differences[row], edits[k].threshold, edits[k].max_pool)
    return [found.get(k) for k in range(len(edits))]


def _starts(source: Source, edits: Sequence[Edit]) -> dict[int, Tensor]:
    """The noises (1, 4, h, w) that edits start from, by ``detail_steps``; what the inversion kept is not made again."""
    inversion, noise, starts = source.inversion, source.latents[0], {}
    for steps in {e.detail_steps or 0 for e in edits}:
        if steps == inversion.detail_steps:
            plain = None if inversion.detail_noise is None else inversion.detail_noise[None].to(noise)
        else:
            plain = plain_noise(source.backbone, source.latents[-1], source.cond, steps)
        starts[steps] = calm_detail(noise, plain)
    return starts
