"""Edits of an inverted picture: target prompts under the learned null embeddings, with Prompt-to-Prompt.

The source's own walk from noise to picture is computed once. Each edit is another row of a batch that starts at the
same noise; outside its mask it is put back on the source's walk after each step. Nothing is inverted again.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

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
from nulltext.attention import AttentionControl, RowControl, attending
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.blending import automatic_mask, fit_mask, keep_pixels, noise_difference, read_mask, word_mask
from nulltext.ddim import Schedule, ddim_step
from nulltext.errors import UserError
from nulltext.inversion import Inversion, ddim_invert, guided_noise

Kind: TypeAlias = Literal["auto", "plain", "replace", "refine", "reweight"]
Method: TypeAlias = Literal["null_text", "ddim", "negative_prompt", "direct"]
Null: TypeAlias = Literal["auto", "learned", "empty"]
Window: TypeAlias = float | tuple[float, float]

AUTO = "auto"
MASKED_GUIDANCE = 3.0
"""The guidance of an edit under a mask; without one it is the inversion's own."""
WORD_THRESHOLD = 0.3
"""The part of an attention map's maximum over which a pixel belongs to a word (Prompt-to-Prompt's code)."""


@dataclass(frozen=True)
class Edit:
    """One edit of a picture.

    Attributes:
        prompt: What the picture is to show.
        kind: ``plain`` no attention control; ``replace`` swaps words one for one; ``refine`` keeps the words that both
            prompts have and lets new ones act; ``reweight`` makes words louder or softer; ``auto`` replace where the
            prompts have equally many words and differ, refine otherwise.
        cross_replace: The share of the steps, 0 to 1, that take the source's cross-attention, or (from, to); for
            single words of the prompt as a mapping, with ``default`` for the others.
        self_replace: The same for self-attention, which holds the layout.
        equalizer: Words of the prompt and what their attention is multiplied with, such as ``{"hat": 2.0}``.
        local_blend: Where the edit may act: ``auto`` where the two prompts would denoise differently; words of either
            prompt (a comma between them) where they are looked at, ``auto`` among them if wanted; None everywhere.
        mask: A picture file or a tensor (H, W) in [0, 1], white where the edit may act. With ``local_blend`` at its
            default it stands alone, otherwise it bounds the other.
        threshold: How different, or how much looked at, a place must be, 0 to 1 of the most; by default one that suits
            the picture for ``auto``, 0.3 for words.
        max_pool: Side of the neighbourhood by which a mask grows, in latent pixels, odd; 1 not at all.
        start: The share of the steps after which the picture is kept outside the mask.
        keep_pixels: Under a mask the picture's own pixels, which the VAE would blur, stay wherever the edit changes
            nothing to see; its reconstruction's where the picture is not at hand.
        guidance_scale: w; by default 3 under a mask and the inversion's own without.
        null: The null text of the edit: ``learned``, ``empty``, or ``auto``: empty under a mask, learned without.
        seed: Draws other noise inside the mask: another hat on the same head.
        name: Names the files; made from the prompt by default.
        compat: Copy the reference where its errors change the result (see ``nulltext.alignment``).
    """

    prompt: str
    kind: Kind = "auto"
    cross_replace: Window | Mapping[str, Window] = 0.4
    self_replace: Window = 0.4
    equalizer: Mapping[str, float] = field(default_factory=dict)
    local_blend: str | Sequence[str] | None = AUTO
    mask: Path | Tensor | None = None
    threshold: float | None = None
    max_pool: int = 3
    start: float = 0.0
    keep_pixels: bool = True
    guidance_scale: float | None = None
    null: Null = "auto"
    seed: int | None = None
    name: str | None = None
    compat: bool = False

    def __post_init__(self) -> None:
        """Refuses what makes no sense, each with what to type instead."""
        for name, value, choices in (
            ("kind", self.kind, get_args(Kind)),
            ("null", self.null, get_args(Null)),
        ):
            if value not in choices:
                raise UserError(f"{name} {value!r} is not one of {', '.join(choices)}")
        windows = self.cross_replace if isinstance(self.cross_replace, Mapping) else {"": self.cross_replace}
        for word, window in windows.items():
            _check_window(f"cross_replace of {word!r}" if word else "cross_replace", window)
        _check_window("self_replace", self.self_replace)
        _check_window("start", self.start)
        if self.threshold is not None:
            _check_window("threshold", self.threshold)
        if self.max_pool < 1 or self.max_pool % 2 == 0:
            raise UserError(
                f"max_pool must be odd and at least 1, not {self.max_pool}; 3 grows by one latent pixel"
            )
        if self.guidance_scale is not None and not 0 <= self.guidance_scale < math.inf:
            raise UserError(
                f"guidance_scale must be 0 or more, not {self.guidance_scale}; 3 to 7.5 are usual"
            )
        if self.kind == "plain" and self.equalizer:
            raise UserError("kind plain has no attention control, so no equalizer; use kind: reweight")
        if self.kind == "reweight" and not self.equalizer:
            raise UserError("kind reweight needs words to weigh, such as --equalizer hat:2.0")
        if self.seed is not None and not self.blends and self.mask is None:
            raise UserError("seed draws other noise inside a mask; give local_blend or mask as well")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> Edit:
        """An edit as YAML says it.

        Raises:
            UserError: An option that there is not, or no prompt.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for option in options:
            if option not in known:
                raise UserError(f"an edit has no option {option!r}; it has: {', '.join(known)}")
        if not isinstance(options.get("prompt"), str):
            raise UserError(
                f"an edit needs a prompt, such as prompt: a photo of a horse; this one has {dict(options)}"
            )
        given = {k: _window(v) if k in ("cross_replace", "self_replace") else v for k, v in options.items()}
        if isinstance(given.get("mask"), str):
            given["mask"] = Path(given["mask"])
        return cls(**given)

    @property
    def blends(self) -> list[str]:
        """What finds the mask: ``auto`` and words; nothing where a given mask stands alone."""
        if self.local_blend is None or (self.local_blend == AUTO and self.mask is not None):
            return []
        given = self.local_blend.split(",") if isinstance(self.local_blend, str) else list(self.local_blend)
        return [word.strip() for word in given if word.strip()]


@dataclass(frozen=True)
class EditResult:
    """What became of an edit."""

    edit: Edit  # kind and guidance_scale as they were taken
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
    empty_null: bool
    same: bool  # the source's own prompt: the reconstruction is what is wanted

    @property
    def masked(self) -> bool:
        return self.fixed_mask is not None or self.bound is not None or self.looks

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
        backbone, schedule, z_0, cond, fixed_point_iterations=inversion.fixed_point_iterations
    )  # fmt: skip


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
    windows = (
        edit.cross_replace if isinstance(edit.cross_replace, Mapping) else {"default": edit.cross_replace}
    )
    share = _steps_inside(windows.get("default", 0.0), steps)[:, None].repeat(1, target.length).float()
    for word, window in windows.items():
        if word != "default":
            share[:, list(find_word(target, word))] = _steps_inside(window, steps)[:, None].float()
    loudness = equalizer(target, edit.equalizer)
    return RowControl(mapper, mapped, loudness, share, _steps_inside(edit.self_replace, steps))


def _steps_inside(window: Window, steps: int) -> Tensor:
    """Which of the T steps lie in a window (T,) bool: those whose middle does."""
    start, end = window if isinstance(window, tuple) else (0.0, window)
    middle = (torch.arange(steps) + 0.5) / steps
    return (middle >= start) & (middle < end)


def _window(given: Any) -> Any:
    """A window as YAML says it, [from, to] as a tuple, also of single words."""
    if isinstance(given, Mapping):
        return {word: _window(window) for word, window in given.items()}
    return tuple(given) if isinstance(given, list) else given


def _check_window(name: str, window: Any) -> None:
    ends = window if isinstance(window, tuple) else (0.0, window)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in ends)
    if len(ends) != 2 or not numbers or not 0 <= ends[0] <= ends[1] <= 1:
        raise UserError(f"{name} is a share of the steps between 0 and 1, or from and to; not {window!r}")


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
    controls = [row_control(e, source, t, schedule.steps) for e, t in zip(edits, targets, strict=True)]
    words = [_blend_words(e, source, t) for e, t in zip(edits, targets, strict=True)]
    size = (latents.shape[-2], latents.shape[-1])
    bounds = [_bound(e, inversion.size, size, backbone.device) for e in edits]
    texts = backbone.embed_prompt([e.prompt for e in edits], inversion.size)
    found = _automatic_masks(backbone, schedule, latents, cond, texts, edits, controls, batch_size)
    plans = []
    for k, e in enumerate(edits):
        same = targets[k].ids == source.ids and not e.equalizer
        if same:
            warnings.warn(
                f"the prompt {e.prompt!r} is the source's own: this edit is the reconstruction", stacklevel=3
            )
        elif (mask := found[k]) is not None and not bool(mask.any()):
            warnings.warn(f"{e.prompt!r} asks the model for the same picture: nothing to edit", stacklevel=3)
        plan = _Plan(e, texts[k : k + 1], controls[k], found[k], bounds[k], words[k], False, same)
        empty = plan.masked if e.null == "auto" else e.null == "empty"
        w = e.guidance_scale
        if w is None:
            w = MASKED_GUIDANCE if plan.masked and not same else inversion.guidance_scale
        taken = dataclasses.replace(e, kind=resolve_kind(e, source, targets[k]), guidance_scale=w)
        plans.append(
            dataclasses.replace(plan, edit=taken, empty_null=empty and not (same and e.null == "auto"))
        )
    return plans


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
    """The edits' guided walks (N, 4, h, w) from the source's noise, each kept on the source's walk outside its mask."""
    n, w = (
        len(plans),
        torch.tensor([p.edit.guidance_scale for p in plans], device=latents.device).view(-1, 1, 1, 1),
    )
    targets = TextEmbedding.cat([plan.target for plan in plans])
    z = torch.cat([_start(plan, latents[0]) for plan in plans])
    for i in range(schedule.steps):
        nulls = TextEmbedding.cat([empty if plan.empty_null else kept[i] for plan in plans])
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


def _start(plan: _Plan, noise: Tensor) -> Tensor:
    """The source's noise (1, 4, h, w); with a seed, other noise inside the mask, at its own strength."""
    if plan.edit.seed is None:
        return noise
    generator = torch.Generator().manual_seed(plan.edit.seed)
    other = torch.randn(noise.shape, generator=generator).to(noise)
    mask = plan.mask(None, 0, (noise.shape[-2], noise.shape[-1]))
    share = torch.ones_like(noise[0, 0]) if mask is None else mask
    return (1 - share).sqrt() * noise + share.sqrt() * other
