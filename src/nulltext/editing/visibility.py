"""An edit that changes nothing visible is made again with stronger guidance, or reported; never silent."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nulltext.editing.compositing import WIDE, changed_share
from nulltext.editing.plans import Plan

if TYPE_CHECKING:
    from nulltext.editing.edit import EditResult

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

    Warns:
        Where another guidance scale was taken, and where an edit still equals ``unedited``, the reconstruction.
    """
    results = make(plans)
    faint = [k for k, r in enumerate(results) if not plans[k].choice.same and _is_faint(r, unedited)]
    tried: dict[int, list[float]] = {k: [_scale(plans[k])] for k in faint}
    for w in STRONGER:
        stronger = [k for k in faint if _is_open(plans[k], results[k]) and _scale(plans[k]) < w]
        again = [
            dataclasses.replace(plans[k], edit=dataclasses.replace(plans[k].edit, guidance_scale=w))
            for k in stronger
        ]
        for k, result in zip(stronger, make(again), strict=True):
            tried[k].append(w)
            if not _is_faint(result, unedited):
                results[k] = result
                faint.remove(k)
                before = f"changes next to nothing at guidance_scale {_scale(plans[k]):g}"
                warnings.warn(f"{result.edit.prompt!r} {before}: taken at {w:g}", stacklevel=3)
    for k in faint:
        if plans[k].bound is None or not _is_seen(results[k], unedited):  # a mask may be painted generously
            warnings.warn(_report(plans[k], results[k], tried[k]), stacklevel=3)
    return results


def _scale(plan: Plan) -> float:
    return float(plan.edit.guidance_scale or 0)


def _is_open(plan: Plan, result: EditResult) -> bool:
    """Whether stronger guidance may help, and was left to the program."""
    return plan.choice.edit.guidance_scale is None and result.mask is not None and bool(result.mask.any())


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
    if result.mask is not None and not bool(result.mask.any()):
        found = plan.found is not None and not bool(plan.found.any())
        why = "means the same picture to the model" if found else "has an empty mask"
        return f"{prompt} {why}, so nothing changes: try {_either(_advice(plan, result, [max(STRONGER)]))}"
    done = f"guidance_scale was {_either([f'{w:g}' for w in tried], 'and')}"
    return f"{prompt} changes next to nothing: try {_either(_advice(plan, result, tried))} ({done})"


def _advice(plan: Plan, result: EditResult, tried: Sequence[float]) -> list[str]:
    given, taken = plan.choice.edit, result.edit
    advice, stronger = ["other words"], [w for w in STRONGER if w > max(tried)]
    if stronger:
        advice.append(f"--guidance_scale {stronger[0]:g}")
    if taken.equalizer:
        advice.append("larger factors in --equalizer")
    elif taken.kind != "plain" and (taken.cross_replace or taken.self_replace):
        advice.append("--cross_replace 0 --self_replace 0")
    if given.blends:
        advice += ["--mask FILE"] * (given.mask is None) + ["--local_blend none"]
    if given.masked:
        advice.append("--seed 1" if given.seed is None else "another --seed")
    return advice


def _either(parts: Sequence[str], word: str = "or") -> str:
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last
