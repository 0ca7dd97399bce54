"""An edit that changes nothing visible is made again with stronger guidance, or reported; never silent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nulltext.editing.compositing import WIDE, changed_share
from nulltext.editing.plans import EditResult, Plan

FAINT = 0.05
"""An edit that changes a smaller share of its mask is as good as none."""
FAINT_ANYWHERE = 0.005
"""The same of the whole picture, without a mask or under a painted one: any patch that moves as one counts."""
STRONGER = (3.0, 7.5)
"""The guidance scales that a faint edit is tried with next, where it leaves the scale open."""


def until_visible(
    make: Callable[[Sequence[Plan]], list[EditResult]], plans: Sequence[Plan], unedited: Tensor
) -> list[EditResult]:
    """Makes edits; what changes nothing visible is guided more where it leaves its guidance scale open.

    Warns where another guidance scale was taken, and where an edit still equals ``unedited``, the reconstruction.
    """
    results = make(plans)
    faint = [k for k, r in enumerate(results) if not plans[k].choice.same and _is_faint(r, unedited)]
    tried = {k: [float(plans[k].edit.guidance_scale or 0)] for k in faint}
    masked = [k for k in faint if (mask := results[k].mask) is not None and bool(mask.any())]
    left_open = [k for k in masked if plans[k].choice.edit.guidance_scale is None]
    for w in STRONGER:
        stronger = [k for k in left_open if k in faint and tried[k][0] < w]
        again = [replace(plans[k], edit=replace(plans[k].edit, guidance_scale=w)) for k in stronger]
        for k, result in zip(stronger, make(again), strict=True):
            tried[k].append(w)
            if not _is_faint(result, unedited):
                results[k] = result
                faint.remove(k)
                before = f"changes next to nothing at guidance_scale {tried[k][0]:g}"
                warnings.warn(f"{result.edit.prompt!r} {before}: taken at {w:g}", stacklevel=3)
    for k in faint:
        if plans[k].bound is None or not _is_seen(results[k], unedited):  # a mask may be painted generously
            warnings.warn(_report(plans[k], results[k], tried[k]), stacklevel=3)
    return results


def _is_faint(result: EditResult, unedited: Tensor) -> bool:
    if result.mask is None:
        return not _is_seen(result, unedited)
    return changed_share(result.picture, unedited, result.mask) < FAINT


def _is_seen(result: EditResult, unedited: Tensor) -> bool:
    everywhere = torch.ones(result.latents.shape[-2:])
    return changed_share(result.picture, unedited, everywhere, WIDE) >= FAINT_ANYWHERE


def _report(plan: Plan, result: EditResult, tried: Sequence[float]) -> str:
    """One line: the edit changes next to nothing, and what to type that was not tried yet."""
    prompt = f"{result.edit.prompt!r}"
    if result.mask is not None and not bool(result.mask.any()):  # more guidance would not help
        found = plan.found is not None and not bool(plan.found.any())
        why = "means the same picture to the model" if found else "has an empty mask"
        return f"{prompt} {why}, so nothing changes: try {_listed(_advice(plan, max(STRONGER)), 'or')}"
    done = f"guidance_scale was {_listed([f'{w:g}' for w in tried], 'and')}"
    return f"{prompt} changes next to nothing: try {_listed(_advice(plan, max(tried)), 'or')} ({done})"


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
