"""``invert``: one picture without Lightning; and how an inversion's tensors become its file."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nulltext.data.frame import Frame
from nulltext.data.picture import Picture, picture_from
from nulltext.inversion import name_of
from nulltext.inversion.base import InversionMethod, Replay, State, StepRecord
from nulltext.inversion.file import Inversion, levels
from nulltext.inversion.methods.null_text import NullText
from nulltext.metrics.pixel import psnr
from nulltext.models.base import DiffusionModel
from nulltext.pixels import to_unit


def run(
    method: InversionMethod,
    model: DiffusionModel,
    state: State,
    after_step: Callable[[StepRecord], None] = lambda record: None,
) -> Replay:
    """All T steps of an inversion from what ``method.begin`` gave: the source's null texts and its trajectory."""
    latents = [state.z]
    for i in range(state.schedule.steps):
        record = method.step(model, state, i)
        latents.append(state.z)
        after_step(record)
    nulls = [method.null_at(model, state, i) for i in range(state.schedule.steps)]
    known = state.schedule, state.pivot, state.memory.get("residuals")
    return method.anchor(Replay(nulls, torch.stack(latents)), *known)


def invert(
    model: DiffusionModel, picture: Any, prompt: str | None = None, method: InversionMethod | None = None
) -> Inversion:
    """Inverts one picture.

    Args:
        model: The model.
        picture: A file, a PIL image, an array (H, W, 3) of 8 bits or in [0, 1], pixels (3, H, W) in [-1, 1], or a
            ``Picture``.
        prompt: What it shows; by default what its file says.
        method: The inversion method; by default null-text inversion.

    Raises:
        UserError: The picture cannot be read, or nothing says what it shows.
    """
    method = method or NullText()
    if not isinstance(picture, Picture):
        frame = Frame(size=model.default_size, multiple=model.size_multiple)
        picture = picture_from(picture, frame, prompt=prompt)
    pixels = picture.pixels[None].to(model.device)
    cond = model.embed(picture.prompt, (pixels.shape[-2], pixels.shape[-1]))
    state = method.begin(model, model.encode(pixels), cond)
    run(method, model, state)
    return describe(model, method, state, picture, 0, measured_psnr(model.decode(state.z)[0], picture))


def measured_psnr(reconstruction: Tensor, picture: Picture) -> float:
    """PSNR in dB of a reconstruction (3, H, W) in [-1, 1] to its picture."""
    ours, theirs = to_unit(reconstruction.cpu()), to_unit(picture.pixels)
    return float(psnr(ours[None], theirs[None]))


def describe(
    model: DiffusionModel, method: InversionMethod, state: State, picture: Picture, b: int, fidelity: float
) -> Inversion:
    """The inversion of a picture, row b of a finished state; fidelity: PSNR in dB of its reconstruction."""
    height, width = picture.pixels.shape[-2:]
    alphas, sigmas = levels(state.schedule)
    pooled = None if model.learned.pooled else state.null_text.extras.get("pooled")
    residuals = state.memory.get("residuals")
    return Inversion(
        null_embeddings=torch.stack([null.detach()[b] for null in state.null]),
        noise=state.pivot[0, b],
        prompt=picture.prompt,
        guidance_scale=method.guidance_scale,
        model=model.name,
        fingerprint=model.fingerprint,
        scheduler=model.scheduler_config,
        timesteps=state.schedule.t.tolist(),
        size=(height, width),
        crop=picture.crop,
        source_sha256=picture.sha256,
        fixed_point_iterations=method.fixed_point_iterations,
        pivot_tolerance=method.pivot_tolerance,
        psnr=fidelity,
        settings=method.describe(model),
        method=name_of(method),
        variant=model.variant,
        revision=model.revision,
        family=model.family,
        kind=state.schedule.kind,
        alphas=alphas,
        sigmas=sigmas,
        placement=picture.placement.to_dict() if picture.placement else {},
        pooled=None if pooled is None else pooled[b],
        pivot=state.pivot[:, b] if method.stores_pivot else None,
        residuals=None if residuals is None else residuals[:, b],
    )
