"""Edits of an inverted picture: target prompts under the learned null embeddings, with Prompt-to-Prompt.

The source's own walk from noise to picture is computed once. Each edit is another row of a batch that starts at the
same noise, or at one that keeps what is coarse in it; outside its mask it is put back on the source's walk after each
step. Nothing is optimised again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from nulltext.alignment import find_word, has_word, tokenize
from nulltext.artifact import Inversion
from nulltext.attention import AttentionControl, attending
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.blending import changed_share, keep_pixels
from nulltext.ddim import Schedule, ddim_step
from nulltext.editing_options import Edit
from nulltext.editing_plans import Plan, Source, plan_edits
from nulltext.errors import UserError
from nulltext.inversion import guided_noise
from nulltext.pivot import ddim_invert

FAINT = 0.05
"""An edit that changes a smaller share of its mask is as good as none."""

STRONGER = (3.0, 7.5)
"""The guidance scales that a faint edit is tried with next, where it leaves the scale open."""

Method: TypeAlias = Literal["null_text", "ddim", "negative_prompt", "direct"]


@dataclass(frozen=True)
class EditResult:
    """What became of an edit."""

    edit: Edit  # with everything that was left open as it was taken
    picture: Tensor  # (3, H, W) in [-1, 1]
    latents: Tensor  # (4, h, w), what the picture was decoded from
    mask: Tensor | None  # (h, w) over the latents, at the last step; None where the edit acted everywhere
    attention: dict[
        str, Tensor
    ]  # of each word asked for: where it was looked at, (h', w'), mean over the steps


@dataclass(frozen=True)
class Edited:
    """The edits of a picture, beside what they started from."""

    reconstruction: Tensor  # (3, H, W) in [-1, 1]
    results: list[EditResult]


@torch.no_grad()
def edit(
    backbone: Backbone,
    inversion: Inversion,
    edits: str | Edit | Sequence[str | Edit],
    *,
    method: Method = "null_text",
    original: Tensor | None = None,
    walk: Tensor | None = None,
    attention: Sequence[str] = (),
    batch_size: int = 8,
) -> Edited:
    """Edits an inverted picture with words.

    Args:
        backbone: The model that the inversion was made with.
        inversion: The inverted picture.
        edits: A target prompt, an ``Edit``, or several.
        method: How the source is held: ``null_text`` by the learned null embeddings; ``ddim`` by plain ones;
            ``negative_prompt`` by the source prompt in their place (Miyake et al., arXiv 2305.16807); ``direct`` by
            walking the pivot itself (Ju et al., arXiv 2310.01506), which is computed anew, without optimisation.
        original: The picture (3, H, W) in [-1, 1]: its pixels stay outside the masks, and ``direct`` computes its
            pivot from it; by default the reconstruction stands in for it.
        walk: The source's own walk (T + 1, 1, 4, h, w) under this method, where it is known already.
        attention: Words whose attention maps are wanted.
        batch_size: Edits that are computed at a time.

    Raises:
        UserError: Another model, words that are not there, prompts that do not suit the kind, an empty mask.
    """
    inversion.check(backbone)
    wanted = [
        Edit(e) if isinstance(e, str) else e for e in ([edits] if isinstance(edits, str | Edit) else edits)
    ]
    if not wanted:
        raise UserError("there is no edit to make; give --prompt 'a photo of ...'")
    schedule = backbone.schedule(inversion.steps)
    cond = backbone.embed_prompt(inversion.prompt, inversion.size)
    empty = backbone.embed_prompt("", inversion.size)
    kept = _kept_null(backbone, inversion, method, cond, empty)
    if walk is not None:
        latents = walk
    elif method == "direct":
        latents = _pivot(backbone, inversion, schedule, cond, original)
    else:
        latents = source_walk(backbone, schedule, inversion, cond, kept)
    source = Source(backbone, inversion, schedule, cond, latents)
    plans = plan_edits(source, wanted, attention, batch_size)
    reconstruction = backbone.decode_latents(latents[-1])[0]
    unedited = reconstruction.cpu()

    def make(plans: Sequence[Plan]) -> list[EditResult]:
        batches = [plans[k : k + batch_size] for k in range(0, len(plans), batch_size)]
        return [result for some in batches for result in _run(source, kept, empty, some, attention)]

    results = _until_seen(make, plans, [e.guidance_scale is None for e in wanted], unedited)
    picture = unedited if original is None else original.cpu()
    results = [_keep_pixels(plan, r, picture, unedited) for plan, r in zip(plans, results, strict=True)]
    return Edited(reconstruction, results)


def _until_seen(
    make: Callable[[Sequence[Plan]], list[EditResult]],
    plans: Sequence[Plan],
    is_open: Sequence[bool],
    unedited: Tensor,
) -> list[EditResult]:
    """The edits; one under a mask that shows nothing is guided more where its guidance scale is open, and that said."""
    results = make(plans)
    faint = [k for k, r in enumerate(results) if is_open[k] and not plans[k].same and _is_faint(r, unedited)]
    for w in STRONGER:
        tried = [k for k in faint if float(plans[k].edit.guidance_scale or 0) < w]
        again = [
            dataclasses.replace(plans[k], edit=dataclasses.replace(plans[k].edit, guidance_scale=w))
            for k in tried
        ]
        for k, result in zip(tried, make(again), strict=True):
            if not _is_faint(result, unedited):
                results[k] = result
                faint.remove(k)
                before = f"changes next to nothing at guidance_scale {plans[k].edit.guidance_scale:g}"
                warnings.warn(f"{result.edit.prompt!r} {before}: taken at {w:g}", stacklevel=3)
    for k in faint:
        advice = "changes next to nothing: try other words, a mask, or local_blend null"
        warnings.warn(f"{results[k].edit.prompt!r} {advice}", stacklevel=3)
    return results


def _is_faint(result: EditResult, unedited: Tensor) -> bool:
    mask = result.mask
    return mask is not None and bool(mask.any()) and changed_share(result.picture, unedited, mask) < FAINT


def _keep_pixels(plan: Plan, result: EditResult, picture: Tensor, unedited: Tensor) -> EditResult:
    if plan.same or result.mask is None or not plan.edit.keep_pixels:
        return result
    kept = keep_pixels(picture, result.picture, unedited, result.mask)
    return dataclasses.replace(result, picture=kept)


def _kept_null(
    backbone: Backbone, inversion: Inversion, method: Method, cond: TextEmbedding, empty: TextEmbedding
) -> list[TextEmbedding]:
    """The null text of each step that holds the source on its walk."""
    ways: dict[str, Callable[[], list[TextEmbedding]]] = {
        "null_text": lambda: inversion.null_texts(backbone),
        "negative_prompt": lambda: [cond] * inversion.steps,
        "ddim": lambda: [empty] * inversion.steps,
        "direct": lambda: [empty] * inversion.steps,
    }
    if method not in ways:
        raise UserError(f"method {method!r} is not one of {', '.join(ways)}")
    return ways[method]()


def source_walk(
    backbone: Backbone,
    schedule: Schedule,
    inversion: Inversion,
    cond: TextEmbedding,
    null: Sequence[TextEmbedding],
) -> Tensor:
    """The guided walk of the source (T + 1, 1, 4, h, w), noisiest first; its end is the reconstruction."""
    latents = [inversion.noise[None].to(backbone.device)]
    for i in range(schedule.steps):
        eps = guided_noise(
            backbone, latents[i], schedule.timesteps[i], cond, null[i], inversion.guidance_scale
        )
        latents.append(ddim_step(latents[i], eps, schedule.alpha_from[i], schedule.alpha_to[i]))
    return torch.stack(latents)


def _pivot(
    backbone: Backbone, inversion: Inversion, schedule: Schedule, cond: TextEmbedding, original: Tensor | None
) -> Tensor:
    """The DDIM inversion of the original, or of the reconstruction, in the place of the source's walk."""
    if original is None:
        z_0 = source_walk(backbone, schedule, inversion, cond, inversion.null_texts(backbone))[-1]
    else:
        z_0 = backbone.encode_image(original[None])
    return ddim_invert(
        backbone,
        schedule,
        z_0,
        cond,
        fixed_point_iterations=inversion.fixed_point_iterations,
        pivot_tolerance=inversion.pivot_tolerance,
    )


def _run(
    source: Source,
    kept: Sequence[TextEmbedding],
    empty: TextEmbedding,
    plans: Sequence[Plan],
    attention: Sequence[str],
) -> list[EditResult]:
    """The walk of a batch of edits, and what is seen of it."""
    backbone, record = source.backbone, bool(attention) or any(plan.looks for plan in plans)
    control = None
    if record or not all(plan.control.empty for plan in plans):
        control = AttentionControl([plan.control for plan in plans], source.size, record)
    with attending(backbone.unet, control):
        z = _edited_walk(source, kept, empty, plans, control)
    pictures = backbone.decode_latents(z)
    results = []
    for k, plan in enumerate(plans):
        maps = {}
        for word in attention:
            target = tokenize(backbone.tokenizer, plan.edit.prompt)
            row, tokens = (k + 1, target) if has_word(target, word) else (0, source.tokens)
            if control is not None:
                maps[word] = control.maps(row, find_word(tokens, word)).cpu()
        mask = plan.mask(control, k + 1, source.size)
        mask = None if mask is None else mask.cpu()
        results.append(EditResult(plan.edit, pictures[k].cpu(), z[k].cpu(), mask, maps))
    return results


def _edited_walk(
    source: Source,
    kept: Sequence[TextEmbedding],
    empty: TextEmbedding,
    plans: Sequence[Plan],
    control: AttentionControl | None,
) -> Tensor:
    """The edits' guided walks (N, 4, h, w) from their noise, each kept on the source's walk outside its mask."""
    n, schedule, latents = len(plans), source.schedule, source.latents
    w = torch.tensor([p.edit.guidance_scale for p in plans], device=latents.device).view(-1, 1, 1, 1)
    targets = TextEmbedding.cat([plan.target for plan in plans])
    z = torch.cat([plan.start for plan in plans])
    for i in range(schedule.steps):
        nulls = TextEmbedding.cat([empty if plan.edit.null == "empty" else kept[i] for plan in plans])
        batch, text = [z, z], [nulls, targets]
        if control is not None:  # the source row, whose attention the edits see through
            control.start_step(i)
            batch, text = [z, latents[i], z], [nulls, source.cond, targets]
        eps = source.backbone.predict_noise(torch.cat(batch), schedule.timesteps[i], TextEmbedding.cat(text))
        eps_null, eps_cond = eps[:n], eps[-n:]
        z = ddim_step(z, eps_null + w * (eps_cond - eps_null), schedule.alpha_from[i], schedule.alpha_to[i])
        z = torch.cat([_blend(plan, control, k, z[k : k + 1], latents[i + 1], (i + 1) / schedule.steps)
                       for k, plan in enumerate(plans)])  # fmt: skip
    return z


def _blend(
    plan: Plan, control: AttentionControl | None, k: int, z: Tensor, walk: Tensor, done: float
) -> Tensor:
    """The edit inside its mask, the source's walk outside (1, 4, h, w)."""
    mask = plan.mask(control, k + 1, (z.shape[-2], z.shape[-1])) if done > plan.edit.start else None
    return z if mask is None else torch.lerp(walk, z, mask)
