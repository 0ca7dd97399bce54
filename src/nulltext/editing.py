"""Edits of an inverted picture: target prompts under the learned null embeddings, with Prompt-to-Prompt.

The source's own walk from noise to picture is computed once. Each edit is another row of a batch that starts at the
same noise, or at one that keeps what is coarse in it; outside its mask it is put back on the source's walk after each
step. Nothing is optimised again.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

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
from nulltext.attention import AttentionControl, RowControl, attending
from nulltext.backbone import Backbone, MaskedEdits, TextEmbedding
from nulltext.blending import automatic_mask, fit_mask, keep_pixels, noise_difference, read_mask, word_mask
from nulltext.ddim import Schedule, ddim_step
from nulltext.editing_options import AUTO, Edit, Kind, Window
from nulltext.errors import UserError
from nulltext.inversion import guided_noise
from nulltext.pivot import ddim_invert
from nulltext.starting_noise import calm_detail, other_noise, plain_noise

Method: TypeAlias = Literal["null_text", "ddim", "negative_prompt", "direct"]

WINDOW = 0.4
"""The share of the steps that see through the source's attention, where nothing else is said."""

WORD_THRESHOLD = 0.3
"""The part of an attention map's maximum over which a pixel belongs to a word (Prompt-to-Prompt's code)."""


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


@dataclass(frozen=True)
class _Plan:
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
    plans = _plan(backbone, inversion, schedule, latents, cond, wanted, attention, batch_size)
    reconstruction = backbone.decode_latents(latents[-1])[0]
    results: list[EditResult] = []
    for k in range(0, len(plans), batch_size):
        results += _run(
            backbone, inversion, schedule, latents, cond, kept, empty, plans[k : k + batch_size], attention
        )
    unedited = reconstruction.cpu()
    picture = unedited if original is None else original.cpu()
    results = [_keep_pixels(plan, r, picture, unedited) for plan, r in zip(plans, results, strict=True)]
    return Edited(reconstruction, results)


def _keep_pixels(plan: _Plan, result: EditResult, picture: Tensor, unedited: Tensor) -> EditResult:
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


def _plan(
    backbone: Backbone,
    inversion: Inversion,
    schedule: Schedule,
    latents: Tensor,
    cond: TextEmbedding,
    edits: Sequence[Edit],
    attention: Sequence[str],
    batch_size: int,
) -> list[_Plan]:
    """Everything that is to be known before the walk; what is wrong is said before the long work."""
    source = tokenize(backbone.tokenizer, inversion.prompt)
    targets = [tokenize(backbone.tokenizer, edit.prompt) for edit in edits]
    for word in attention:
        for target in targets:
            find_word(source if has_word(source, word) else target, word)
    sames = [t.ids == source.ids and not e.equalizer for e, t in zip(edits, targets, strict=True)]
    taken = [
        _as_taken(e, source, t, same, backbone.masked_edits, inversion.guidance_scale)
        for e, t, same in zip(edits, targets, sames, strict=True)
    ]
    controls = [row_control(e, source, t, schedule.steps) for e, t in zip(taken, targets, strict=True)]
    words = [_blend_words(e, source, t) for e, t in zip(edits, targets, strict=True)]
    size = (latents.shape[-2], latents.shape[-1])
    bounds = [_bound(e, inversion.size, size, backbone.device) for e in edits]
    texts = backbone.embed_prompt([e.prompt for e in edits], inversion.size)
    found = _automatic_masks(backbone, schedule, latents, cond, texts, edits, controls, batch_size)
    starts = _starts(backbone, inversion, latents, cond, taken)
    plans = []
    for k, e in enumerate(taken):
        if sames[k]:
            warnings.warn(
                f"the prompt {e.prompt!r} is the source's own: this edit is the reconstruction", stacklevel=3
            )
        elif (mask := found[k]) is not None and not bool(mask.any()):
            warnings.warn(f"{e.prompt!r} asks the model for the same picture: nothing to edit", stacklevel=3)
        start = starts[e.detail_steps or 0]
        plan = _Plan(e, texts[k : k + 1], controls[k], found[k], bounds[k], words[k], sames[k], start)
        if e.seed is not None:
            plan = dataclasses.replace(plan, start=other_noise(plan.start, plan.mask(None, 0, size), e.seed))
        plans.append(plan)
    return plans


def _starts(
    backbone: Backbone, inversion: Inversion, latents: Tensor, cond: TextEmbedding, edits: Sequence[Edit]
) -> dict[int, Tensor]:
    """The noises (1, 4, h, w) that edits start from, by ``detail_steps``; what the inversion kept is not made again."""
    noise, z_0, starts = latents[0], latents[-1], {}
    for steps in {e.detail_steps or 0 for e in edits}:
        if steps == inversion.detail_steps:
            plain = None if inversion.detail_noise is None else inversion.detail_noise[None].to(noise)
        else:
            plain = plain_noise(backbone, z_0, cond, steps)
        starts[steps] = calm_detail(noise, plain)
    return starts


def _as_taken(
    edit: Edit, source: Tokens, target: Tokens, same: bool, suits: MaskedEdits, guidance_scale: float
) -> Edit:
    """The edit with everything that it leaves open, by what suits the model and the prompts."""
    masked = edit.masked and not same
    windows = suits.masked_windows if masked and edit.kind == "auto" else WINDOW
    left_open: dict[str, Any] = {
        "cross_replace": windows,
        "self_replace": windows,
        "guidance_scale": suits.masked_guidance if masked else guidance_scale,
        "detail_steps": suits.masked_detail_steps if masked else 0,
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


def _bound(
    edit: Edit, picture: tuple[int, int], latent: tuple[int, int], device: torch.device
) -> Tensor | None:
    if edit.mask is None:
        return None
    if isinstance(edit.mask, Tensor):
        return fit_mask(edit.mask, latent).to(device)
    return read_mask(edit.mask, picture, latent).to(device)


def _automatic_masks(
    backbone: Backbone,
    schedule: Schedule,
    latents: Tensor,
    cond: TextEmbedding,
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
    differences = torch.cat([
        noise_difference(backbone, schedule, latents[-1], cond, texts[torch.tensor(some)], [controls[k] for k in some])
        for some in rows
    ])  # fmt: skip
    found: dict[int, Tensor] = {}
    for row, k in enumerate(chosen):
        found[k] = automatic_mask(differences[row], edits[k].threshold, edits[k].max_pool)
    return [found.get(k) for k in range(len(edits))]


def _run(
    backbone: Backbone,
    inversion: Inversion,
    schedule: Schedule,
    latents: Tensor,
    cond: TextEmbedding,
    kept: Sequence[TextEmbedding],
    empty: TextEmbedding,
    plans: Sequence[_Plan],
    attention: Sequence[str],
) -> list[EditResult]:
    """The walk of a batch of edits, and what is seen of it."""
    size = (latents.shape[-2], latents.shape[-1])
    record = bool(attention) or any(plan.looks for plan in plans)
    control = None
    if record or not all(plan.control.empty for plan in plans):
        control = AttentionControl([plan.control for plan in plans], size, record)
    with attending(backbone.unet, control):
        z = _edited_walk(backbone, schedule, latents, cond, kept, empty, plans, control)
    pictures = backbone.decode_latents(z)
    source = tokenize(backbone.tokenizer, inversion.prompt)
    results = []
    for k, plan in enumerate(plans):
        maps = {}
        for word in attention:
            target = tokenize(backbone.tokenizer, plan.edit.prompt)
            row, tokens = (k + 1, target) if has_word(target, word) else (0, source)
            if control is not None:
                maps[word] = control.maps(row, find_word(tokens, word)).cpu()
        mask = plan.mask(control, k + 1, size)
        mask = None if mask is None else mask.cpu()
        results.append(EditResult(plan.edit, pictures[k].cpu(), z[k].cpu(), mask, maps))
    return results


def _edited_walk(
    backbone: Backbone,
    schedule: Schedule,
    latents: Tensor,
    cond: TextEmbedding,
    kept: Sequence[TextEmbedding],
    empty: TextEmbedding,
    plans: Sequence[_Plan],
    control: AttentionControl | None,
) -> Tensor:
    """The edits' guided walks (N, 4, h, w) from their noise, each kept on the source's walk outside its mask."""
    n, w = (
        len(plans),
        torch.tensor([p.edit.guidance_scale for p in plans], device=latents.device).view(-1, 1, 1, 1),
    )
    targets = TextEmbedding.cat([plan.target for plan in plans])
    z = torch.cat([plan.start for plan in plans])
    for i in range(schedule.steps):
        nulls = TextEmbedding.cat([empty if plan.edit.null == "empty" else kept[i] for plan in plans])
        batch, text = [z, z], [nulls, targets]
        if control is not None:  # the source row, whose attention the edits see through
            control.start_step(i)
            batch, text = [z, latents[i], z], [nulls, cond, targets]
        eps = backbone.predict_noise(torch.cat(batch), schedule.timesteps[i], TextEmbedding.cat(text))
        eps_null, eps_cond = eps[:n], eps[-n:]
        z = ddim_step(z, eps_null + w * (eps_cond - eps_null), schedule.alpha_from[i], schedule.alpha_to[i])
        z = torch.cat([_blend(plan, control, k, z[k : k + 1], latents[i + 1], (i + 1) / schedule.steps)
                       for k, plan in enumerate(plans)])  # fmt: skip
    return z


def _blend(
    plan: _Plan, control: AttentionControl | None, k: int, z: Tensor, source: Tensor, done: float
) -> Tensor:
    """The edit inside its mask, the source's walk outside (1, 4, h, w)."""
    mask = plan.mask(control, k + 1, (z.shape[-2], z.shape[-1])) if done > plan.edit.start else None
    return z if mask is None else torch.lerp(source, z, mask)
