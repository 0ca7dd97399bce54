"""Edits of an inverted picture: target prompts under the learned null embeddings, with Prompt-to-Prompt.

The source's trajectory from noise to picture is computed once. Each edit is another row of a batch, sampled from the
same noise. Outside its mask it is put back on the source's trajectory after each step. Nothing is optimised again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from nulltext.diffusion import Prediction, guide, sample
from nulltext.editing.compositing import keep_pixels
from nulltext.editing.kinds.controls import AttentionControl, controlled
from nulltext.editing.options import Edit
from nulltext.editing.plans import EditResult, Plan, choose, prepare
from nulltext.editing.regions import Source
from nulltext.editing.tokens import find_word, has_word
from nulltext.editing.verdict import find_judge
from nulltext.editing.visibility import until_visible
from nulltext.errors import UserError
from nulltext.inversion import method_for
from nulltext.inversion.base import InversionMethod, Replay
from nulltext.inversion.file import Inversion
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning


@dataclass(frozen=True)
class Edited:
    """The edits of a picture, beside what they started from."""

    reconstruction: Tensor  # (3, H, W) in [-1, 1]
    results: list[EditResult]


@torch.no_grad()
def edit(
    model: DiffusionModel,
    inversion: Inversion,
    edits: str | Edit | Sequence[str | Edit],
    *,
    method: str | InversionMethod | Replay | None = None,
    original: Tensor | None = None,
    attention: Sequence[str] = (),
    batch_size: int = 8,
) -> Edited:
    """Edits an inverted picture with words.

    Args:
        model: The model that the inversion was made with.
        inversion: The inverted picture.
        edits: A target prompt, an ``Edit``, or several.
        method: How the source is reproduced: a method's name or import path, such as ``ddim`` or ``residual``; the
            replay, where it is known already; by default the inversion's own.
        original: The picture (3, H, W) in [-1, 1]: its pixels stay outside the masks, and ``direct`` computes its
            pivot from it. By default the reconstruction takes its place.
        attention: Words whose attention maps are wanted.
        batch_size: Edits that are computed at a time.

    Raises:
        UserError: Another model, words that are not there, prompts that do not suit the kind, an empty mask.
    """
    inversion.check(model)
    several = [edits] if isinstance(edits, str | Edit) else edits
    wanted = [e if isinstance(e, Edit) else Edit(e) for e in several]
    if not wanted:
        raise UserError("there is no edit to make; give --prompt 'a photo of ...'")
    judges = {name: find_judge(model, name) for name in {e.judge for e in wanted if not e.compat}}
    judged = [not e.compat and judges[e.judge] is not None for e in wanted]
    by = method if isinstance(method, Replay | InversionMethod) else method_for(inversion, method)
    choices = choose(model, inversion, wanted, judged, attention, by.held)
    replay = by if isinstance(by, Replay) else _replay(model, inversion, by, original)
    cond = model.embed(inversion.prompt, inversion.size)
    source = Source(model, inversion, replay.schedule or inversion.schedule(model), cond, replay)
    plans, reconstruction = prepare(source, choices, batch_size), model.decode(source.trajectory[-1])[0]
    unedited = reconstruction.cpu()

    def make(plans: Sequence[Plan]) -> list[EditResult]:
        batches = [plans[k : k + batch_size] for k in range(0, len(plans), batch_size)]
        return [result for some in batches for result in _run(source, some, attention)]

    picture = unedited if original is None else original.cpu()

    def composed(plan: Plan, result: EditResult) -> Tensor:
        if not plan.edit.keep_pixels or result.mask is None or plan.choice.same:
            return result.picture
        return keep_pixels(picture, result.picture, unedited, result.mask)

    def verdict(plan: Plan, result: EditResult) -> Mapping[str, float]:
        judge = None if plan.edit.compat else judges[plan.edit.judge]
        return judge(composed(plan, result), inversion.prompt, plan.edit.prompt) if judge else {}

    results = until_visible(make, plans, unedited, verdict)
    pairs = zip(plans, results, strict=True)
    return Edited(reconstruction, [replace(r, picture=composed(p, r)) for p, r in pairs])


def _replay(
    model: DiffusionModel, inversion: Inversion, method: InversionMethod, original: Tensor | None
) -> Replay:
    """The source under a method; one that lacks its pivot computes it from the original, or its reconstruction."""
    if method.served_by(inversion):
        return method.replay(model, inversion)
    if original is not None:
        return method.replay(model, inversion, model.encode(original[None]))
    own = method_for(inversion).replay(model, inversion)
    return method.replay(model, inversion, own.trajectory[-1])


def _run(source: Source, plans: Sequence[Plan], attention: Sequence[str]) -> list[EditResult]:
    """Samples a batch of N edits, and reads what was recorded of it."""
    n, model, rows = len(plans), source.model, [plan.choice.control for plan in plans]
    record = bool(attention) or any(plan.following for plan in plans)
    wanted = record or not all(row.empty for row in rows)
    control = AttentionControl(rows, source.size, record) if wanted else None
    w = torch.tensor([plan.edit.guidance_scale for plan in plans], device=model.device).view(-1, 1, 1, 1)
    targets = Conditioning.cat([plan.text for plan in plans])
    empty = model.embed("", source.inversion.size)

    def denoise(z: Tensor, i: int) -> Prediction:
        """Guided; where there is a control, beside the source row, whose attention the edits see through."""
        learned = source.null_texts[i]
        nulls = Conditioning.cat([empty if plan.edit.null == "empty" else learned for plan in plans])
        batch, text = [z, z], [nulls, targets]
        if control is not None:
            control.start_step(i)
            batch, text = [z, source.trajectory[i], z], [nulls, source.cond, targets]
        predict = partial(model.predict, schedule=source.schedule, i=i, text=Conditioning.cat(text))
        prediction = source.replay.ask(predict, torch.cat(batch), i, source.schedule.here(i))
        return guide(prediction[:n], prediction[-n:], w)

    def after(z: Tensor, i: int) -> Tensor:
        """Each edit inside its mask, the source's trajectory outside."""
        done, held, added = (i + 1) / source.schedule.steps, [], source.replay.added
        z = z if added is None else z + added[i]
        for k, plan in enumerate(plans):
            mask, own = plan.mask(control, k + 1) if done > plan.edit.start else None, z[k : k + 1]
            held.append(own if mask is None else torch.lerp(source.trajectory[i + 1], own, mask))
        return torch.cat(held)

    z = torch.cat([plan.start for plan in plans])
    with controlled(model, control):
        for latents in sample(denoise, source.schedule, z, after, source.replay.first):
            z = latents
    pictures, results = model.decode(z), []
    for k, plan in enumerate(plans):
        maps = {word: _map(plan, control, k + 1, word) for word in attention} if control is not None else {}
        mask = plan.mask(control, k + 1)
        mask = None if mask is None else mask.cpu()
        results.append(EditResult(plan.edit, pictures[k].cpu(), z[k].cpu(), mask, maps))
    return results


def _map(plan: Plan, control: AttentionControl, row: int, word: str) -> Tensor:
    """Where a word was looked at (h', w'): by the edit where its prompt has it, else by the source."""
    of_edit = has_word(plan.choice.target, word)
    tokens = find_word(plan.choice.target if of_edit else plan.choice.source, word)
    return control.maps(row if of_edit else 0, tokens).cpu()
