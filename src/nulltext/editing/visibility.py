"""An edit that changes nothing visible, or lacks a change, is made again with stronger guidance, or reported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from nulltext.editing.compositing import WIDE, changed_share
from nulltext.editing.options import AUTO
from nulltext.editing.plans import EditResult, Plan

FAINT = 0.05
"""An edit that changes a smaller share of its mask is as good as none."""
FAINT_ANYWHERE = 0.005
"""The same of the whole picture, without a mask or under a painted one: any patch that moves as one counts."""
STRONGER = (3.0, 5.0)
"""The guidance scales that an edit is tried with next, where it leaves the scale open."""
OTHER = 1
"""The seed of the other noise that it is tried from last, at the least of them, where it leaves the seed open.

What an object leaves behind is in the source's own noise: no guidance takes it away, other noise does.
"""
NOTHING = (False, 0)
"""What an edit lacks that is visible and shows every change."""

Verdict: TypeAlias = Callable[[Plan, EditResult], Mapping[str, float]]
"""Says of an edit how clearly each change of its prompt is seen, above 0 where it is."""


def until_visible(
    make: Callable[[Sequence[Plan]], list[EditResult]],
    plans: Sequence[Plan],
    unedited: Tensor,
    verdict: Verdict = lambda plan, result: {},
) -> list[EditResult]:
    """Makes edits; what changes nothing visible, or lacks a change, is made again where it leaves open how.

    Of what is tried, the first that shows everything is taken, or that which shows most. Warns where another than the
    first was taken, and of what is still missing.

    Args:
        make: Makes edits of plans.
        plans: The plans.
        unedited: The reconstruction (3, H, W).
        verdict: How clearly each change of an edit's prompt is seen, above 0 where it is.
    """

    def lacking(k: int) -> bool:
        return not plans[k].choice.same and _lacks(results[k], unedited) != NOTHING

    results = [_judged(p, r, verdict) for p, r in zip(plans, make(plans), strict=True)]
    first = {k: r for k, r in enumerate(results) if lacking(k)}
    masked = [k for k, r in first.items() if r.mask is not None and bool(r.mask.any())]
    ladders = {k: _ladder(plans[k]) for k in masked}
    tried = {k: [plans[k]] for k in first}
    for rung in range(max(map(len, ladders.values()), default=0)):
        again = {k: ladder[rung] for k, ladder in ladders.items() if rung < len(ladder) and lacking(k)}
        for (k, plan), result in zip(again.items(), make(list(again.values())), strict=True):
            tried[k].append(plan)
            judged = _judged(plan, result, verdict)
            if _lacks(judged, unedited) < _lacks(results[k], unedited):
                results[k] = judged
    for k, before in first.items():
        if results[k] is not before:
            warnings.warn(f"{_missing(before, unedited)}{_how(before, results[k])}", stacklevel=3)
        # a mask may be painted generously
        if lacking(k) and (plans[k].bound is None or not _is_seen(results[k], unedited)):
            warnings.warn(_report(plans[k], results[k], unedited, tried[k]), stacklevel=3)
    return results


def _ladder(plan: Plan) -> list[Plan]:
    """What is tried next, where the edit leaves it open: stronger guidance, all of the picture, other noise."""
    given, taken = plan.choice.edit, float(plan.edit.guidance_scale or 0)
    if given.guidance_scale is not None:
        return []
    stronger = [replace(plan, edit=replace(plan.edit, guidance_scale=w)) for w in STRONGER if w > taken]
    if not stronger:
        return []
    free = [stronger[-1].everywhere()] if given.blends == [AUTO] and given.mask is None else []
    fixed = given.seed is not None or given.compat or plan.choice.held
    return [*stronger, *free] if fixed else [*stronger, *free, stronger[0].reseeded(OTHER)]


def _how(before: EditResult, after: EditResult) -> str:
    """From which guidance scale to which, where, and from which noise."""
    noise = "" if before.edit.seed == after.edit.seed else f" with seed {after.edit.seed}"
    where = "" if before.edit.threshold == after.edit.threshold else ", anywhere in the picture"
    taken = f"taken at {after.edit.guidance_scale:g}{noise}{where}"
    return f" at guidance_scale {before.edit.guidance_scale:g}: {taken}"


def _judged(plan: Plan, result: EditResult, verdict: Verdict) -> EditResult:
    return result if plan.choice.same else replace(result, verdict=verdict(plan, result))


def _lacks(result: EditResult, unedited: Tensor) -> tuple[bool, int]:
    """What an edit lacks, in an order: whether it changes nothing visible, and how many changes are not seen."""
    return _is_faint(result, unedited), len(_unseen(result))


def _unseen(result: EditResult) -> list[str]:
    return [change for change, margin in result.verdict.items() if margin <= 0]


def _missing(result: EditResult, unedited: Tensor) -> str:
    """What an edit lacks, in words."""
    prompt = f"{result.edit.prompt!r}"
    if _is_faint(result, unedited):
        return f"{prompt} changes next to nothing"
    return f"{prompt} does not show {_listed([repr(change) for change in _unseen(result)], 'and')}"


def _is_faint(result: EditResult, unedited: Tensor) -> bool:
    shown = bool(result.verdict) and not _unseen(result)  # what a judge sees may be small beside its mask
    if result.mask is None or shown:
        return not _is_seen(result, unedited)
    return changed_share(result.picture, unedited, result.mask) < FAINT


def _is_seen(result: EditResult, unedited: Tensor) -> bool:
    everywhere = torch.ones(result.latents.shape[-2:])
    return changed_share(result.picture, unedited, everywhere, WIDE) >= FAINT_ANYWHERE


def _report(plan: Plan, result: EditResult, unedited: Tensor, tried: Sequence[Plan]) -> str:
    """One line: what the edit lacks, and what to type that was not tried yet."""
    prompt = f"{result.edit.prompt!r}"
    if result.mask is not None and not bool(result.mask.any()):  # more guidance would not help
        found = plan.found is not None and not bool(plan.found.any())
        why = "means the same picture to the model" if found else "has an empty mask"
        return f"{prompt} {why}, so nothing changes: try {_listed(_advice(plan, max(STRONGER), tried), 'or')}"
    scales = list(dict.fromkeys(float(one.edit.guidance_scale or 0) for one in tried))
    other = ["anywhere in the picture"] * any(one.edit.threshold != plan.edit.threshold for one in tried)
    other += [f"seed {one.edit.seed}" for one in tried if one.edit.seed != plan.edit.seed]
    done = (
        f"guidance_scale was {_listed([f'{w:g}' for w in scales], 'and')}{''.join(f', {o}' for o in other)}"
    )
    return f"{_missing(result, unedited)}: try {_listed(_advice(plan, max(scales), tried), 'or')} ({done})"


def _advice(plan: Plan, strongest: float, tried: Sequence[Plan]) -> list[str]:
    """What may help, where guidance scales up to ``strongest`` do not."""
    given, taken = plan.choice.edit, plan.edit
    advice = ["other words", *[f"--guidance_scale {w:g}" for w in STRONGER if w > strongest][:1]]
    if taken.equalizer:
        advice.append("larger factors in --equalizer")
    elif taken.kind != "plain" and (taken.cross_replace or taken.self_replace):
        advice.append("--cross_replace 0 --self_replace 0")
    if given.blends:
        advice += ["--mask FILE"] * (given.mask is None) + ["--local_blend none"]
    if given.masked and not plan.choice.held:
        seeds = {one.edit.seed for one in tried}
        advice.append(f"--seed {OTHER}" if seeds <= {None} else "another --seed")
    return advice


def _listed(parts: Sequence[str], word: str) -> str:
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last
