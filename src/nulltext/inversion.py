"""Null-text inversion (Mokady et al., CVPR 2023, Algorithm 1): the pivot, then one null embedding a timestep.

Plain functions without Lightning. Latents are (B, 4, h, w) for B pictures at once; level 0 is the noisiest,
``pivot[0] = z_T``, and step i goes from level i to level i + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nulltext.artifact import Inversion
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step, guide, predict_clean
from nulltext.errors import UserError
from nulltext.inversion_settings import InversionSettings, choices, default_optimizer, detail_steps
from nulltext.pivot import ddim_invert
from nulltext.starting_noise import plain_noise

if TYPE_CHECKING:
    from nulltext.data import Picture

MAX_UNSCALABLE = 3  # steps in a row with a non-finite loss before the run ends


class NonFiniteLoss(UserError):
    """The loss of several inner steps in a row was not a number."""


OnInnerStep: TypeAlias = Callable[[int, Tensor], None]


@dataclass
class LossScale:
    """Keeps small fp16 gradients above the smallest number of that type; 1 for other types.

    The loss is a mean over the latents and ends near 1e-5: its gradients would all round to zero in fp16. The scale
    is halved where a scaled gradient overflows, and that step is done again.
    """

    value: float = 1.0

    @classmethod
    def for_dtype(cls, dtype: torch.dtype) -> LossScale:
        """2^20 for fp16, 1 for the types with fp32's range."""
        return cls(2.0**20 if dtype == torch.float16 else 1.0)


@dataclass(frozen=True)
class StepRecord:
    """What happened in one timestep, for B pictures."""

    step: int
    # || z*_{t-1} - z_{t-1} ||^2, mean over the latent, before each inner step, and where the tolerance ended the loop
    # also the one that was small enough
    losses: Tensor  # (n, B) fp32
    grad_norms: Tensor  # (m, B) of the m inner steps
    inner_steps: Tensor  # (B,) int64: inner steps taken
    learning_rate: float
    skipped: int  # inner steps that were skipped, their loss or gradient not finite
    z: Tensor  # (B, 4, h, w): the guided walk after this step
    z_clean: Tensor  # (B, 4, h, w): the clean latents that it points to


def start_embedding(backbone: Backbone, cond: TextEmbedding, start: float) -> TextEmbedding:
    """Where the null embeddings start: between the empty prompt (0, the paper) and the source prompt (1)."""
    null = backbone.embed_prompt("").expand(len(cond))
    return TextEmbedding(
        torch.lerp(null.sequence, cond.sequence, start),
        None if null.pooled is None or cond.pooled is None else torch.lerp(null.pooled, cond.pooled, start),
        cond.time_ids,
    )


def optimise_null_embedding(
    backbone: Backbone,
    schedule: Schedule,
    i: int,
    z: Tensor,
    target: Tensor,
    cond: TextEmbedding,
    null: TextEmbedding,
    parameter: nn.Parameter,
    optimizer: Optimizer,
    settings: InversionSettings,
    scale: LossScale,
    on_inner_step: OnInnerStep | None = None,
) -> StepRecord:
    """One timestep of Algorithm 1: bends null_i until the guided step lands on the pivot.

    ``for j = 0 ... N-1:  null_i <- null_i - eta grad || z*_{t-1} - z_{t-1}(z_t, null_i, C) ||^2``

    The losses of the B pictures are summed: the optimiser keeps rows apart, so this equals B separate runs. A picture
    whose loss before a step is below the tolerance, or was below the threshold of early stop before the step then
    taken, keeps its embedding from then on. With a tolerance a step that led away from the pivot is taken back, and is
    the last. A timestep in which something was not finite is done again from its start, with half the loss scale:
    without a tolerance or an early stop the inner loop asks nothing of the device.

    Args:
        backbone: The model.
        schedule: T noise levels.
        i: The step, 0 the noisiest.
        z: The guided walk's latents at level i (B, 4, h, w).
        target: The pivot at level i + 1 (B, 4, h, w).
        cond: The source prompts, B rows.
        null: What rides along with the null embeddings, B rows; its sequence is replaced by the parameter.
        parameter: null_i (B, L, d), changed in place.
        optimizer: Steps the parameter; no other of its parameters may have a gradient.
        settings: N, w, the tolerance and the early stop.
        scale: The loss scale of fp16, changed in place.
        on_inner_step: Is told of each inner step before it is taken: its number j and the losses (B,) then.

    Raises:
        NonFiniteLoss: Three times in a row the loss was not finite, or its gradient was not and the scale is 1.
    """
    start, skipped, in_a_row = parameter.detach().clone(), 0, 0
    while True:
        record = _optimise_once(
            backbone,
            schedule,
            i,
            z,
            target,
            cond,
            null,
            parameter,
            optimizer,
            settings,
            scale.value,
            on_inner_step,
        )
        if _is_finite(record.losses, record.grad_norms, record.z):
            return dataclasses.replace(record, skipped=skipped)
        skipped, in_a_row = skipped + len(record.grad_norms), in_a_row + 1
        in_a_row = _after_overflow(record.losses, scale, in_a_row, i)
        optimizer.state.pop(parameter, None)
        with torch.no_grad():
            parameter.copy_(start)


def _optimise_once(
    backbone: Backbone,
    schedule: Schedule,
    i: int,
    z: Tensor,
    target: Tensor,
    cond: TextEmbedding,
    null: TextEmbedding,
    parameter: nn.Parameter,
    optimizer: Optimizer,
    settings: InversionSettings,
    scale: float,
    on_inner_step: OnInnerStep | None,
) -> StepRecord:
    """The inner loop and the guided step, whether its numbers are finite or not."""
    t, a_from, a_to = schedule.timesteps[i], schedule.alpha_from[i], schedule.alpha_to[i]
    w, early_stop = settings.guidance_scale, settings.early_stop(i) if settings.early_stop_loss else 0.0
    budget = settings.inner_steps if w != 1 else 0  # at w = 1 the null embedding has no say
    active = torch.ones(len(z), dtype=torch.bool, device=z.device)
    steps_taken = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    losses: list[Tensor] = []
    norms: list[Tensor] = []
    eps_null, eps_cond = _first_predictions(
        backbone, z, t, cond, null.with_sequence(parameter), w, budget > 0
    )

    def distance(eps_null: Tensor) -> Tensor:  # (B,)
        z_next = ddim_step(z, guide(eps_null, eps_cond, w), a_from, a_to)
        return (z_next - target).square().mean(dim=(1, 2, 3))

    loss = distance(eps_null)
    for j in range(budget):
        losses.append(loss.detach())
        if on_inner_step is not None:
            on_inner_step(j, losses[-1])
        if settings.tolerance:
            active = active & ~(losses[-1] < settings.tolerance)
            if not active.any():
                break
        (gradient,) = torch.autograd.grad(loss.sum() * scale, parameter)
        norms.append((gradient / scale).flatten(1).norm(dim=1))
        if scale > 1 and not _is_finite(gradient):
            break
        before = parameter.detach().clone()
        _step(optimizer, parameter, gradient / scale, active)
        steps_taken += active
        active = active & ~(losses[-1] < early_stop)
        last = j + 1 == budget or bool(early_stop and not active.any())
        if last and settings.fresh_guided_step and not settings.tolerance:
            break
        with torch.set_grad_enabled(not last):
            eps_new = backbone.predict_noise(z, t, null.with_sequence(parameter))
            loss = distance(eps_new)
            if settings.tolerance:
                worse = loss.detach() > losses[-1]
                parameter.data = torch.where(worse[:, None, None], before, parameter.data)
                eps_new = torch.where(worse[:, None, None, None], eps_null.detach(), eps_new)
                active = active & ~worse
            eps_null = eps_new
        if last:
            break
    if settings.fresh_guided_step:
        with torch.no_grad():
            eps = guided_noise(backbone, z, t, cond, null.with_sequence(parameter), w)
    else:
        eps = guide(eps_null.detach(), eps_cond, w)
    return StepRecord(
        step=i,
        losses=torch.stack(losses) if losses else z.new_zeros(0, len(z)),
        grad_norms=torch.stack(norms) if norms else z.new_zeros(0, len(z)),
        inner_steps=steps_taken,
        learning_rate=next(
            g["lr"] for g in optimizer.param_groups if any(p is parameter for p in g["params"])
        ),
        skipped=0,
        z=ddim_step(z, eps, a_from, a_to),
        z_clean=predict_clean(z, eps, a_from),
    )


def _first_predictions(
    backbone: Backbone,
    z: Tensor,
    t: Tensor,
    cond: TextEmbedding,
    null: TextEmbedding,
    w: float,
    learn: bool,
) -> tuple[Tensor, Tensor]:
    """eps_null, with its graph if it is to be learned from, and eps_cond: one forward if they are the same."""
    with torch.set_grad_enabled(learn):
        if w == 1 or null.equals(cond):
            eps_null = backbone.predict_noise(z, t, null if w != 1 else cond)
            return eps_null, eps_null.detach()
    with torch.no_grad():
        eps_cond = backbone.predict_noise(z, t, cond)
    with torch.set_grad_enabled(learn):
        return backbone.predict_noise(z, t, null), eps_cond


def _step(optimizer: Optimizer, parameter: nn.Parameter, gradient: Tensor, active: Tensor) -> None:
    """One optimiser step for the pictures that are still active."""
    before = parameter.detach().clone()
    parameter.grad = gradient
    optimizer.step()
    parameter.grad = None
    with torch.no_grad():
        parameter.copy_(torch.where(active[:, None, None], parameter, before))


def _is_finite(*numbers: Tensor) -> bool:
    """Whether all are; the one question that a timestep asks of the device."""
    return bool(torch.stack([x.isfinite().all() for x in numbers]).all())


def _after_overflow(losses: Tensor, scale: LossScale, in_a_row: int, i: int) -> int:
    """Halves the loss scale where only the scaled gradient overflowed; gives up on losses that are not finite."""
    if scale.value > 1 and _is_finite(losses[:1]):
        scale.value /= 2
        return 0
    if in_a_row >= MAX_UNSCALABLE:
        raise NonFiniteLoss(
            f"the loss of step {i} was not finite {in_a_row} times in a row; "
            "try --trainer.precision 32-true or a smaller --model.optimizer.lr"
        )
    return in_a_row


@torch.no_grad()
def sample(
    backbone: Backbone,
    schedule: Schedule,
    z: Tensor,
    cond: TextEmbedding,
    null: Sequence[TextEmbedding],
    w: float,
) -> Tensor:
    """The guided walk from noise to a picture's latents.

    Args:
        backbone: The model.
        schedule: T noise levels.
        z: The noise z_T (B, 4, h, w).
        cond: The prompts, B rows.
        null: The null text of each step, B rows each; one entry serves all steps.
        w: Guidance scale; at 1 the null text is not asked.

    Returns:
        z_0 (B, 4, h, w).
    """
    for i in range(schedule.steps):
        eps = guided_noise(backbone, z, schedule.timesteps[i], cond, null[i if len(null) > 1 else 0], w)
        z = ddim_step(z, eps, schedule.alpha_from[i], schedule.alpha_to[i])
    return z


def guided_noise(
    backbone: Backbone, z: Tensor, t: Tensor | int, cond: TextEmbedding, null: TextEmbedding, w: float
) -> Tensor:
    """The guided prediction (B, 4, h, w); both halves in one batch."""
    if w == 1:
        return backbone.predict_noise(z, t, cond)
    eps = backbone.predict_noise(torch.cat([z, z]), t, TextEmbedding.cat([null, cond]))
    eps_null, eps_cond = eps.chunk(2)
    return guide(eps_null, eps_cond, w)


def reconstruct(backbone: Backbone, inversion: Inversion) -> Tensor:
    """The picture's latents z_0 (1, 4, h, w): the guided walk under the learned null embeddings."""
    cond = backbone.embed_prompt(inversion.prompt, inversion.size)
    noise = inversion.noise[None].to(backbone.device)
    schedule = backbone.schedule(inversion.steps)
    return sample(backbone, schedule, noise, cond, inversion.null_texts(backbone), inversion.guidance_scale)


def optimise(
    backbone: Backbone,
    schedule: Schedule,
    pivot: Tensor,
    cond: TextEmbedding,
    settings: InversionSettings,
    optimizer: Callable[[Iterable[Any]], Optimizer] = default_optimizer,
) -> Iterator[tuple[StepRecord, Tensor]]:
    """All T timesteps of Algorithm 1, each with a fresh optimiser.

    Yields:
        The record of step i and its null embedding (B, L, d).
    """
    null = start_embedding(backbone, cond, settings.start)
    z, scale = pivot[0], LossScale.for_dtype(backbone.dtype)
    for i in range(schedule.steps):
        parameter = nn.Parameter(null.sequence.clone())
        inner = optimizer([parameter])
        for group in inner.param_groups:
            group["lr"] *= 1 - settings.learning_rate_decay * i
        record = optimise_null_embedding(
            backbone, schedule, i, z, pivot[i + 1], cond, null, parameter, inner, settings, scale
        )
        z = record.z
        if settings.warm_start:
            null = null.with_sequence(parameter.detach())
        yield record, parameter.detach()


def invert(
    backbone: Backbone,
    picture: Picture | Path | str,
    prompt: str | None = None,
    settings: InversionSettings | None = None,
    optimizer: Callable[[Iterable[Any]], Optimizer] = default_optimizer,
) -> Inversion:
    """Inverts one picture, without Lightning.

    Args:
        backbone: The model.
        picture: A picture as ``nulltext.pictures.read_picture`` gives it, or a file to be read so.
        prompt: What it shows; by default as its file says (see ``nulltext.data``).
        settings: The choices of the inversion.
        optimizer: Makes the optimiser of a timestep from its parameters.

    Raises:
        UserError: The picture cannot be read, or nothing says what it shows.
    """
    if isinstance(picture, (str, Path)):
        from nulltext.pictures import read_picture

        picture = read_picture(
            Path(picture), prompt=prompt, size=backbone.default_size, multiple=backbone.vae_scale_factor
        )
    settings = settings or InversionSettings()
    prompt = picture.prompt if prompt is None else prompt
    schedule = backbone.schedule(settings.steps)
    pixels = picture.pixels[None].to(backbone.device)
    size = (pixels.shape[-2], pixels.shape[-1])
    cond = backbone.embed_prompt(prompt, size)
    z_0 = backbone.encode_image(pixels)
    pivot = ddim_invert(
        backbone,
        schedule,
        z_0,
        cond,
        fixed_point_iterations=settings.fixed_point_iterations,
        pivot_tolerance=settings.pivot_tolerance,
    )
    detail_noise = plain_noise(backbone, z_0, cond, detail_steps(backbone, settings))
    nulls, z = [], pivot[0]
    for record, null in optimise(backbone, schedule, pivot, cond, settings, optimizer):
        z = record.z
        nulls.append(null[0])
    mse = (backbone.decode_latents(z) - pixels).square().mean() / 4  # pixels span 2
    return describe(
        backbone,
        schedule,
        picture,
        settings,
        torch.stack(nulls),
        pivot[0, 0],
        float(-10 * mse.log10()),
        prompt,
        optimizer,
        None if detail_noise is None else detail_noise[0],
    )


def describe(
    backbone: Backbone,
    schedule: Schedule,
    picture: Picture,
    settings: InversionSettings,
    null_embeddings: Tensor,
    noise: Tensor,
    psnr: float,
    prompt: str | None = None,
    optimizer: Callable[[Iterable[Any]], Optimizer] = default_optimizer,
    detail_noise: Tensor | None = None,
) -> Inversion:
    """An Inversion from its tensors, with everything that it must say of itself."""
    height, width = picture.pixels.shape[-2:]
    prompt = picture.prompt if prompt is None else prompt
    pooled = None
    if backbone.family == "sdxl":
        cond = backbone.embed_prompt(prompt, (height, width))
        pooled = start_embedding(backbone, cond, settings.start).pooled
    return Inversion(
        null_embeddings=null_embeddings,
        noise=noise,
        prompt=prompt,
        guidance_scale=settings.guidance_scale,
        model=backbone.name,
        fingerprint=backbone.fingerprint,
        scheduler=backbone.scheduler_config,
        timesteps=schedule.timesteps.tolist(),
        size=(height, width),
        crop=str(picture.crop),
        source_sha256=picture.sha256,
        fixed_point_iterations=settings.fixed_point_iterations,
        pivot_tolerance=settings.pivot_tolerance,
        psnr=psnr,
        settings=choices(backbone, settings, optimizer),
        pooled=None if pooled is None else pooled[0],
        detail_steps=0 if detail_noise is None else detail_steps(backbone, settings),
        detail_noise=detail_noise,
    )
