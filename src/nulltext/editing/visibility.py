"""An edit that changes nothing visible, or lacks a change, is made again with stronger guidance, or reported."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from nulltext.editing.compositing import WIDE, changed_share
from nulltext.editing.plans import EditResult, Plan

FAINT = 0.05
"""An edit that changes a smaller share of its mask is as good as none."""
FAINT_ANYWHERE = 0.005
"""The same of the whole picture, without a mask or under a painted one: any patch that moves as one counts."""
STRONGER = (3.0, 7.5)
"""The guidance scales that an edit is tried with next, where it leaves the scale open."""
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
    """Makes edits; what changes nothing visible, or lacks a change, is guided more where its guidance scale is open.

    Of the guidance scales that are tried, the least that shows everything is taken, or that which shows most. Warns
    where another one was taken than at first, and of what is still missing.

    Args:
        make: Makes edits of plans.
        plans: The plans.
        unedited: The reconstruction (3, H, W).
        verdict: How clearly each change of an edit's prompt is seen, above 0 where it is.
    """
    results = [_judged(p, r, verdict) for p, r in zip(plans, make(plans), strict=True)]
    first = {
        k: r for k, r in enumerate(results) if not plans[k].choice.same and _lacks(r, unedited) != NOTHING
    }
    tried = {k: [float(plans[k].edit.guidance_scale or 0)] for k in first}
    masked = [k for k, r in first.items() if r.mask is not None and bool(r.mask.any())]
    left_open = [k for k in masked if plans[k].choice.edit.guidance_scale is None]
    for w in STRONGER:
        stronger = [k for k in left_open if tried[k][0] < w and _lacks(results[k], unedited) != NOTHING]
        again = [replace(plans[k], edit=replace(plans[k].edit, guidance_scale=w)) for k in stronger]
        for k, plan, result in zip(stronger, again, make(again), strict=True):
            tried[k].append(w)
            judged = _judged(plan, result, verdict)
            if _lacks(judged, unedited) < _lacks(results[k], unedited):
                results[k] = judged
    for k, before in first.items():
        if results[k] is not before:
            taken = results[k].edit.guidance_scale
            warnings.warn(
                f"{_missing(before, unedited)} at guidance_scale {tried[k][0]:g}: taken at {taken:g}",
                stacklevel=3,
            )
        if _lacks(results[k], unedited) == NOTHING:
            continue
        if plans[k].bound is None or not _is_seen(results[k], unedited):  # a mask may be painted generously
            warnings.warn(_report(plans[k], results[k], unedited, tried[k]), stacklevel=3)
    return results


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
    if result.mask is None:
        return not _is_seen(result, unedited)
    return changed_share(result.picture, unedited, result.mask) < FAINT


def _is_seen(result: EditResult, unedited: Tensor) -> bool:
    everywhere = torch.ones(result.latents.shape[-2:])
    return changed_share(result.picture, unedited, everywhere, WIDE) >= FAINT_ANYWHERE


def _report(plan: Plan, result: EditResult, unedited: Tensor, tried: Sequence[float]) -> str:
    """One line: what the edit lacks, and what to type that was not tried yet."""
    prompt = f"{result.edit.prompt!r}"
    if result.mask is not None and not bool(result.mask.any()):  # more guidance would not help
        found = plan.found is not None and not bool(plan.found.any())
        why = "means the same picture to the model" if found else "has an empty mask"
        return f"{prompt} {why}, so nothing changes: try {_listed(_advice(plan, max(STRONGER)), 'or')}"
    done = f"guidance_scale was {_listed([f'{w:g}' for w in tried], 'and')}"
    return f"{_missing(result, unedited)}: try {_listed(_advice(plan, max(tried)), 'or')} ({done})"


def _advice(plan: Plan, tried: float) -> list[str]:
    """What may help, where guidance scales up to ``tried`` do not."""
    given, taken = plan.choice.edit, plan.edit
    advice = ["other words", *[f"--guidance_scale {w:g}" for w in STRONGER if w > tried][:1]]
    if taken.equalizer:
        advice.append("larger factors in --equalizer")
    elif taken.kind != "plain" and (taken.cross_replace or taken.self_replace):
        advice.append("--cross_replace 0 --self_replace 0")
    if given.blends:
        advice += ["--mask FILE"] * (given.mask is None) + ["--local_blend none"]
    if given.masked:
        advice.append("--seed 1" if given.seed is None else "another --seed")
    return advice


def _listed(parts: Sequence[str], word: str) -> str:
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last
