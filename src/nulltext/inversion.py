"""Null-text inversion (Mokady et al., CVPR 2023, Algorithm 1): the pivot, then one null embedding a timestep.

Plain functions without Lightning. Latents are (B, 4, h, w) for B pictures at once; level 0 is the noisiest,
``pivot[0] = z_T``, and step i goes from level i to level i + 1.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nulltext.artifact import FORMAT_VERSION, read_artifact
from nulltext.backbone import DTYPES, Backbone, TextEmbedding
from nulltext.ddim import Schedule, ddim_step, guide, predict_clean
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.optimizers import NormalisedGradient

if TYPE_CHECKING:
    from nulltext.data import Picture

MAX_UNSCALABLE = 3  # steps in a row with a non-finite loss before the run ends


class NonFiniteLoss(UserError):
    """The loss of several inner steps in a row was not a number."""


OnInnerStep: TypeAlias = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class InversionSettings:
    """The choices of an inversion, all of them; the defaults are the best measured.

    ``configs/paper.yaml`` has the values of the paper and its code.
    """

    steps: int = 20  # T, the DDIM steps
    inner_steps: int = 1  # N, at most so many optimiser steps a timestep
    guidance_scale: float = 7.5  # w
    start: float = 1.0  # where null_0 starts: 0 the empty prompt, 1 the source prompt; see warm_start
    fixed_point_iterations: int = 4  # refinements of each step of the pivot, at most; 0: plain DDIM inversion
    pivot_tolerance: float = 1e-5  # one that moves the latents by less (mean square) is the last; 0: all
    learning_rate_decay: float = 0.01  # step i learns at lr * (1 - decay * i)
    tolerance: float = 1e-5  # a loss below it needs no (further) inner step; 0: all (paper)
    early_stop_loss: float = 0.0  # end after the step whose loss was below it + growth * i; 0 never
    early_stop_growth: float = 0.0
    fresh_guided_step: bool = False  # ask the network again for the step after the inner loop (paper's code)

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        if self.inner_steps < 0:
            raise UserError(f"inner_steps must be 0 or more, not {self.inner_steps}; the paper takes 10")
        if not 0 <= self.start <= 1:
            raise UserError(
                f"start must lie between 0 (empty prompt) and 1 (source prompt), not {self.start}"
            )
        if not self.tolerance >= 0:
            raise UserError(
                f"tolerance must be 0 or more, not {self.tolerance}; 0 always takes all inner steps"
            )
        if self.fixed_point_iterations < 0:
            raise UserError(f"fixed_point_iterations must be 0 or more, not {self.fixed_point_iterations}")
        if not self.pivot_tolerance >= 0:
            raise UserError(
                f"pivot_tolerance must be 0 or more, not {self.pivot_tolerance}; 0 always refines as often as allowed"
            )
        if not 1 <= self.steps <= 1000:
            raise UserError(f"steps must be between 1 and 1000, not {self.steps}; 50 is the paper's choice")
        if not self.guidance_scale >= 0:
            raise UserError(
                f"guidance_scale must be 0 or more, not {self.guidance_scale}; 7.5 is the paper's choice"
            )

    @property
    def warm_start(self) -> bool:
        """Whether a null embedding starts where the one before ended (paper).

        Not from the source prompt itself: there the null prediction is the conditional one, which saves a forward,
        and what there is to correct is new at each timestep.
        """
        return self.start < 1

    def early_stop(self, step: int) -> float:
        """The loss below which step i ends after the inner step then taken."""
        return self.early_stop_loss + self.early_stop_growth * step


def default_optimizer(parameters: Iterable[Any]) -> Optimizer:
    """Steps along the gradient, a fifth as long as Adam's first at the paper's learning rate of 0.01."""
    return NormalisedGradient(parameters)


def choices(
    backbone: Backbone, settings: InversionSettings, optimizer: Callable[[Iterable[Any]], Optimizer]
) -> dict[str, Any]:
    """What an inversion says of how it was made: its settings, the optimiser, the learning rate, the precision."""
    inner = optimizer([torch.zeros(1, requires_grad=True)])
    return {
        **dataclasses.asdict(settings),
        "optimizer_class": f"{type(inner).__module__}.{type(inner).__name__}",
        "learning_rate": float(inner.param_groups[0]["lr"]),
        "precision": next(name for name, dtype in DTYPES.items() if dtype == backbone.dtype),
    }


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


@torch.no_grad()
def ddim_invert(
    backbone: Backbone,
    schedule: Schedule,
    z_0: Tensor,
    cond: TextEmbedding,
    *,
    fixed_point_iterations: int = 0,
    pivot_tolerance: float = 0.0,
) -> Tensor:
    """The pivot: DDIM inversion at guidance 1 (paper, section 3.1).

    The network sees the timestep of the level that a step reaches. Plain DDIM inversion asks it at the latent that
    the step leaves. A refined step asks at the latent that it reaches, so that sampling back meets the same noise:
    at first at the one where the noise of the steps before would lead, then at the one where each answer leads.

    Args:
        backbone: The model.
        schedule: T noise levels.
        z_0: The pictures' latents (B, 4, h, w).
        cond: The source prompts' embeddings, B rows.
        fixed_point_iterations: At most k refinements of each step, one forward each, and one more for the first two,
            which have too few before them to go by; 0 is plain DDIM inversion, T forwards.
        pivot_tolerance: A picture whose latents a refinement moved by less, in the mean square, is refined no further;
            nor one that would move further than the time before, since there refining leads away. 0 refines k times.

    Returns:
        The trajectory (T + 1, B, 4, h, w), noisiest first: ``pivot[0] = z_T``, ``pivot[T] = z_0``.
    """
    pivot: list[Tensor] = [z_0]
    seen: list[Tensor] = []  # the noise of the two steps before
    for i in reversed(range(schedule.steps)):
        t, a_from, a_to = schedule.timesteps[i], schedule.alpha_to[i], schedule.alpha_from[i]
        z = z_next = pivot[-1]
        if fixed_point_iterations and seen:
            z_next = ddim_step(z, expected_noise(seen), a_from, a_to)
        one_more = fixed_point_iterations == 0 or len(seen) < 2
        eps, stands = torch.zeros_like(z), torch.zeros(len(z), 1, 1, 1, dtype=torch.bool, device=z.device)
        moved = torch.full_like(stands, torch.inf, dtype=z.dtype)
        for _ in range(fixed_point_iterations + one_more):
            asked = backbone.predict_noise(z_next, t, cond)
            reached = ddim_step(z, asked, a_from, a_to)
            if pivot_tolerance:
                before, moved = moved, (reached - z_next).square().mean(dim=(1, 2, 3), keepdim=True)
                stands |= moved > before
            eps, z_next = torch.where(stands, eps, asked), torch.where(stands, z_next, reached)
            if pivot_tolerance:
                stands |= moved < pivot_tolerance
                if stands.all():
                    break
        pivot.append(z_next)
        seen = [*seen[-1:], eps]
    return torch.stack(pivot[::-1])


def expected_noise(seen: Sequence[Tensor]) -> Tensor:
    """The noise of the next step, on the line through the last two."""
    return seen[-1] if len(seen) == 1 else 2 * seen[-1] - seen[-2]


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


@dataclass(frozen=True)
class Inversion:
    """What an inversion leaves: enough to reconstruct and edit the picture with the same model."""

    null_embeddings: Tensor  # (T, L, d) fp32
    noise: Tensor  # (4, h, w) fp32, z_T
    prompt: str
    guidance_scale: float
    model: str  # the name it was loaded by
    fingerprint: str  # of the UNet's weights
    scheduler: dict[str, Any]  # the scheduler's config
    timesteps: list[int]  # T, noisiest first
    size: tuple[int, int]  # (height, width) in pixels
    crop: str = "center"
    source_sha256: str = ""
    fixed_point_iterations: int = 0
    pivot_tolerance: float = 0.0
    psnr: float = float("nan")  # dB, the reconstruction against the picture
    settings: dict[str, Any] = field(default_factory=dict)
    pooled: Tensor | None = None  # (p,), SDXL: the null text's pooled embedding

    @property
    def steps(self) -> int:
        """The number of timesteps T."""
        return len(self.null_embeddings)

    def save(self, path: Path) -> None:
        """Writes ``inversion.safetensors``: the tensors, and everything else as JSON in the metadata."""
        from safetensors.torch import save_file

        tensors, facts = {}, {"format_version": FORMAT_VERSION}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                tensors[name] = value.detach().float().cpu().contiguous()
            elif value is not None:
                facts[name] = value
        metadata = {"nulltext": json.dumps(facts, sort_keys=True, default=str)}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> Inversion:
        """Reads ``inversion.safetensors``.

        Raises:
            UserError: No such file, a damaged one, one that nulltext did not write, or a newer format.
        """
        facts, tensors = read_artifact(Path(path))
        values: dict[str, Any] = {**facts, **tensors, "size": tuple(facts["size"])}
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{path} is not an inversion ({error}); make it again with fit") from None

    def check(self, backbone: Backbone) -> None:
        """Refuses a model other than the one this inversion was made with.

        Raises:
            UserError: Another model or schedule, naming both.
        """
        if self.fingerprint != backbone.fingerprint:
            raise UserError(
                f"this inversion was made with {self.model} (weights {self.fingerprint[:8]}), not with "
                f"{backbone.name} (weights {backbone.fingerprint[:8]}); invert the picture again or load {self.model}"
            )
        timesteps = backbone.schedule(self.steps).timesteps.tolist()
        if timesteps != self.timesteps:
            raise UserError(
                f"this inversion's timesteps start {self.timesteps[:3]}, the model's scheduler gives {timesteps[:3]}; "
                "restore the scheduler's config or invert the picture again"
            )
        f, d = backbone.vae_scale_factor, backbone.unet.config.cross_attention_dim
        embeddings = (self.steps, backbone.max_length, d)
        noise = (backbone.latent_channels, self.size[0] // f, self.size[1] // f)
        if tuple(self.null_embeddings.shape) != embeddings or tuple(self.noise.shape) != noise:
            raise UserError(
                f"this inversion holds {tuple(self.null_embeddings.shape)} embeddings and {tuple(self.noise.shape)} "
                f"noise where {backbone.name} takes {embeddings} and {noise}; invert the picture again"
            )

    def null_texts(self, backbone: Backbone) -> list[TextEmbedding]:
        """The learned null text of each step, one row each."""
        null = backbone.embed_prompt("", self.size)
        if self.pooled is not None:
            null = dataclasses.replace(null, pooled=self.pooled[None].to(backbone.device))
        learned = self.null_embeddings.to(backbone.device)
        return [null.with_sequence(sequence[None]) for sequence in learned]


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
    nulls = []
    z_0 = pivot[0]
    for record, null in optimise(backbone, schedule, pivot, cond, settings, optimizer):
        z_0 = record.z
        nulls.append(null[0])
    mse = (backbone.decode_latents(z_0) - pixels).square().mean() / 4  # pixels span 2
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
    )
