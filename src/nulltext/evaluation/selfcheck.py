"""Whether the program does with a model what it should: measured on one picture, in plain lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.editing import Edit, edit
from nulltext.inversion.base import InversionMethod
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.ddim import DDIM
from nulltext.inversion.methods.null_text import NullText
from nulltext.metrics.pixel import psnr
from nulltext.models.base import DiffusionModel
from nulltext.pixels import to_unit

UNTRAINED = 0.9
"""A network whose error is this share of what it should predict, or more, knows nothing; one that says 0 has 1."""
VAE_DB, BACK_DB, LEARNED_DB = 20.0, 20.0, 1.0


@dataclass(frozen=True)
class Line:
    """One thing that was checked."""

    what: str
    expected: str
    came: str
    ok: bool
    advice: str  # what to do where it is not as expected
    picture: Tensor | None = None  # (3, H, W) in [-1, 1]


def network_error(model: DiffusionModel, picture: Picture, levels: int = 4) -> float:
    """The network's squared error on noisy latents of a picture as a share of what it should predict.

    A mean over noise levels from the middle of the schedule on; 1 for a network that always says 0.
    """
    pixels = picture.pixels[None].to(model.device)
    z_0, cond = model.encode(pixels), model.embed(picture.prompt, picture.size)
    schedule = model.schedule(2 * levels, picture.size)
    noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(0)).to(z_0)
    errors, wanted = 0.0, 0.0
    for i in range(levels // 2, levels // 2 + levels):
        level = schedule.here(i)
        output = model.predict(level.alpha * z_0 + level.sigma * noise, schedule, i, cond).output
        truth = {
            "epsilon": noise,
            "v_prediction": level.alpha * noise - level.sigma * z_0,
            "flow": noise - z_0,
        }[model.kind]
        errors += float((output - truth).square().mean())
        wanted += float(truth.square().mean())
    return errors / wanted


@torch.no_grad()
def self_check(
    model: DiffusionModel, picture: Picture, target: str, steps: int, inner_steps: int
) -> Iterator[Line]:
    """Checks a model on a picture; each line comes as soon as it is known.

    Args:
        model: The model.
        picture: A picture with its prompt.
        target: The prompt of the edit.
        steps: T of every inversion.
        inner_steps: N of the null-text inversion.
    """
    error = network_error(model, picture)
    trained = error < UNTRAINED
    yield Line(
        "the network's error, as a share of what it predicts",
        f"below {UNTRAINED:g}",
        f"{error:.2f}" + ("" if trained else ": the weights are random, or not of this network"),
        trained,
        "load trained weights; random ones show no more than that the code runs",
    )
    vae = model.decode(model.encode(picture.pixels[None].to(model.device)))[0].cpu()
    yield _shown(
        "the picture through the VAE and back, PSNR",
        f"at least {VAE_DB:g} dB",
        (vae, picture.pixels),
        lambda db: db >= VAE_DB,
        "another VAE, --model.variant without fp16 (some VAEs overflow), or a picture with fewer small things",
    )
    plain = DDIM(steps=steps, fixed_point_iterations=1)
    back = _reconstruction(model, picture, replace(plain, guidance_scale=1.0))
    name = "Euler" if model.kind == "flow" else "DDIM"
    yield _shown(
        f"{name} inversion and back at guidance 1, PSNR to the VAE's picture",
        f"at least {BACK_DB:g} dB",
        (back, vae),
        lambda db: db >= BACK_DB,
        "more --steps; a prompt that says what the picture shows; --precision 32-true",
    )
    away = _reconstruction(model, picture, plain)
    yield _shown(
        f"the same at guidance {plain.guidance_scale:g}, nothing learned",
        "worse than at guidance 1",
        (away, vae),
        lambda db: db < _psnr(back, vae),
        "guidance does nothing: is the model distilled, or the prompt empty?",
    )
    learning = NullText(steps=steps, inner_steps=inner_steps)
    yield from _learned(model, picture, Edit(target), learning, (away, vae))


def _learned(
    model: DiffusionModel, picture: Picture, change: Edit, method: NullText, before: tuple[Tensor, Tensor]
) -> Iterator[Line]:
    """Inverts with learned null embeddings, and edits; ``before``: what came with nothing learned, and its aim."""
    edited = edit(model, invert(model, picture, method=method), change, original=picture.pixels)
    learned = edited.reconstruction.cpu()
    yield _shown(
        "the same with learned null embeddings (null-text inversion)",
        f"at least {LEARNED_DB:g} dB better than with nothing learned",
        (learned, before[1]),
        lambda db: db >= _psnr(*before) + LEARNED_DB,
        "more --inner_steps; --precision 32-true",
    )
    result = edited.results[0].picture
    yield _shown(
        f"an edit: {change.prompt!r}, PSNR to the reconstruction",
        "finite, and changed",
        (result, learned),
        lambda db: -math.inf < db < 60,
        "other words, or --guidance_scale 5 in edit",
    )


def _shown(
    what: str, expected: str, pair: tuple[Tensor, Tensor], good: Callable[[float], bool], advice: str
) -> Line:
    """The line of a picture's PSNR to another."""
    db = _psnr(*pair)
    return Line(what, expected, f"{db:.1f} dB", good(db), advice, pair[0])


def _reconstruction(model: DiffusionModel, picture: Picture, method: InversionMethod) -> Tensor:
    inversion = invert(model, picture, method=method)
    return model.decode(method.replay(model, inversion).trajectory[-1])[0].cpu()


def _psnr(a: Tensor, b: Tensor) -> float:
    if not bool(a.isfinite().all()):
        return -math.inf
    return float(psnr(to_unit(a)[None], to_unit(b)[None]))
