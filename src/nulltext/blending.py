"""Where an edit may change the picture: masks over the latents, found by noise differences, words or a picture file.

Outside its mask an edit is kept on the source's own walk. Masks are (h, w) in [0, 1], 1 where the edit may act.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.attention import AttentionControl, RowControl, attending
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.ddim import Schedule
from nulltext.errors import UserError

PROBES = 6
"""How often the noise predictions of two prompts are compared."""

PROBED_TIMESTEPS = (400, 750)
"""Between them layout and shapes are decided: earlier all is noise, later only texture is left."""

GENEROUS = 0.5
"""Part of Otsu's threshold that is taken: a mask too small leaves the source's outline around a changed shape."""

VISIBLE = ((2.0, 0.28), (1.0, 0.55))
"""Patches, as (their side in latents, how far they must move in the mean, in [-1, 1], to be the edit's).

Up to half of it the picture's pixels stay, between them is mixed. Signed differences are averaged, so that what the
VAE gets wrong here one way and there the other cancels out. Higher, and more of the picture stays, but outlines of what
was there shine through what took its place.
"""

WIDE = (2.0, 0.1)
"""The same for a patch that moves as one, each part so far and the same way: a paler sky is seen, blur is not."""

GAP = 1.5
"""Side, in latents, up to which pixels between what the edit changed are the edit's as well: an outline left over."""

NOTHING = 1e-3
"""A difference in predicted noise, whose deviation is 1, below which two prompts ask for the same picture."""


def probe_steps(schedule: Schedule) -> list[int]:
    """The steps to probe, evenly spread over ``PROBED_TIMESTEPS``, some twice where T is small."""
    low, high = PROBED_TIMESTEPS
    inside = [i for i, t in enumerate(schedule.timesteps.tolist()) if low <= t <= high]
    inside = inside or [schedule.steps // 2]
    return [inside[round(k * (len(inside) - 1) / (PROBES - 1))] for k in range(PROBES)]


@torch.no_grad()
def noise_difference(
    backbone: Backbone,
    schedule: Schedule,
    z_0: Tensor,
    cond: TextEmbedding,
    targets: TextEmbedding,
    controls: Sequence[RowControl] = (),
) -> Tensor:
    """How differently the source and the target prompts would denoise the source under fresh noise.

    As in DiffEdit (Couairon et al., arXiv 2210.11427, section 3.2), but at several noise levels, each with its own
    noise, which is always the same. Attention control does not count, for it exists to make the two alike, except what
    an equalizer does.

    Args:
        backbone: The model.
        schedule: T noise levels.
        z_0: The source's latents (1, 4, h, w).
        cond: The source prompt, one row.
        targets: The target prompts, N rows.
        controls: Their attention controls, N of them, or none.

    Returns:
        (N, h, w): the root mean square over channels, averaged over the probed steps.
    """
    text = TextEmbedding.cat([cond, targets])
    size = (z_0.shape[-2], z_0.shape[-1])
    generator = torch.Generator().manual_seed(0)
    heard = [row for row in controls if bool((row.equalizer != 1).any())]
    control = AttentionControl([_only_equalizer(row) for row in controls], size) if heard else None
    differences = []
    with attending(backbone.unet, control):
        for i in probe_steps(schedule):
            if control is not None:
                control.start_step(i)
            alpha_bar = schedule.alpha_from[i]
            noise = torch.randn(z_0.shape, generator=generator).to(z_0)
            z = (alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise).expand(len(text), *z_0.shape[1:])
            eps = backbone.predict_noise(z, schedule.timesteps[i], text)
            differences.append((eps[1:] - eps[:1]).square().mean(1).sqrt())  # (N, h, w)
    return torch.stack(differences).mean(0)


def _only_equalizer(row: RowControl) -> RowControl:
    """The control of a row without what it takes from the source."""
    weighed = (row.equalizer != 1).float()
    nothing = torch.zeros_like(row.self_steps)
    return RowControl(row.mapper, torch.zeros_like(row.mapped), row.equalizer, row.share * weighed, nothing)


def automatic_mask(difference: Tensor, threshold: float | None = None, max_pool: int = 3) -> Tensor:
    """The part of the picture that a prompt asks to change.

    The difference is smoothed, measured against its 97th percentile, cut at a threshold, grown by the max-pool so that
    a larger shape finds room, and softened at its edge.

    Args:
        difference: What ``noise_difference`` gives for one prompt (h, w).
        threshold: A part of the 97th percentile; by default from Otsu's, which suits the picture.
        max_pool: Side of the max-pool, odd; 1 does not grow the mask.

    Returns:
        (h, w) in [0, 1]; all 0 where the prompts ask for the same picture.
    """
    smooth = _smooth(difference)
    scale = torch.quantile(smooth, 0.97)
    if scale < NOTHING:
        return torch.zeros_like(difference)
    relative = (smooth / scale).clamp(max=1)
    cut = GENEROUS * otsu_threshold(relative) if threshold is None else threshold
    return _smooth(_pool((relative > cut).float(), max_pool))


def word_mask(maps: Sequence[Tensor], size: tuple[int, int], threshold: float, max_pool: int = 3) -> Tensor:
    """Where any of some words is looked at (Prompt-to-Prompt's local blend).

    Args:
        maps: The attention maps (h', w') of the words, source's and target's.
        size: (h, w) of the latents.
        threshold: A part of each map's maximum.
        max_pool: Side of the max-pool, odd.

    Returns:
        (h, w), 0 or 1.
    """
    mask = torch.zeros(size, dtype=torch.bool, device=maps[0].device)
    for attention in maps:
        grown = F.interpolate(_pool(attention, max_pool)[None, None], size=size)[0, 0]
        mask |= grown / grown.max().clamp(min=1e-12) > threshold
    return mask.float()


def keep_pixels(picture: Tensor, edited: Tensor, unedited: Tensor, mask: Tensor) -> Tensor:
    """The edit where it changes something to see, the picture's own pixels everywhere else.

    What the VAE loses is so lost only where the edit acts, and a mask that is larger than the change does no harm.

    Args:
        picture: What was inverted (3, H, W) in [-1, 1].
        edited: The decoded edit (3, H, W).
        unedited: The decoded reconstruction (3, H, W).
        mask: Where the edit may act (h, w) over the latents.

    Returns:
        (3, H, W).
    """
    size, latent = (picture.shape[-2], picture.shape[-1]), picture.shape[-2] // mask.shape[0]
    side = partial(_side, scale=latent)
    change = edited - unedited
    moved = [(_smooth(change, side(patch)).abs(), visible) for patch, visible in VISIBLE]
    smooth = _smooth(change, side(1))
    moved += [(_opened(way.clamp(min=0), side(WIDE[0])), WIDE[1]) for way in (smooth, -smooth)]
    seen = torch.stack([(2 * far.amax(0) / visible - 1).clamp(0, 1) for far, visible in moved]).amax(0)
    seen = -_opened(-seen, side(GAP))
    allowed = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return torch.lerp(picture, edited, allowed * seen)


def changed_share(edited: Tensor, unedited: Tensor, mask: Tensor) -> float:
    """The share of a mask (h, w) over which an edit (3, H, W) differs from the reconstruction enough to be seen."""
    size, (patch, visible) = (edited.shape[-2], edited.shape[-1]), VISIBLE[0]
    seen = _smooth(edited - unedited, _side(patch, size[0] // mask.shape[0])).abs().amax(0) > visible
    inside = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0] > 0.5
    return float((seen & inside).sum() / inside.sum().clamp(min=1))


def read_mask(path: Path, picture: tuple[int, int], latent: tuple[int, int]) -> Tensor:
    """A mask from a picture file, white where the edit may act, gray for a soft edge.

    Args:
        path: The file.
        picture: (height, width) of the picture in pixels; a mask of another size is resized, and said.
        latent: (h, w) to bring it to.

    Returns:
        (h, w) in [0, 1].

    Raises:
        UserError: It cannot be read, or has no white.
    """
    import numpy as np
    from PIL import Image

    from nulltext.pictures import decode

    path = Path(path)
    if not path.exists():
        raise UserError(f"cannot read the mask {path}: no such file; give a picture, white where to edit")
    try:
        gray = decode(path)[0].convert("L")
    except (OSError, ValueError, UserError) as error:
        raise UserError(
            f"cannot read the mask {path}: {error}; give a picture, white where to edit"
        ) from None
    if (gray.height, gray.width) != picture:
        warnings.warn(
            f"the mask {path} is {gray.width} x {gray.height}, the picture {picture[1]} x {picture[0]}; resized it",
            stacklevel=2,
        )
        gray = gray.resize((picture[1], picture[0]), Image.Resampling.BILINEAR)
    mask = torch.from_numpy(np.asarray(gray, dtype=np.float32) / 255)
    return fit_mask(mask, latent, str(path))


def fit_mask(mask: Tensor, latent: tuple[int, int], name: str = "given") -> Tensor:
    """A mask (H, W) in [0, 1] over pixels as (h, w) over latents: each latent has the mean of its pixels.

    Raises:
        UserError: It is empty.
    """
    small = F.interpolate(mask.float()[None, None], size=latent, mode="area")[0, 0].clamp(0, 1)
    if not bool((small > 0).any()):
        raise UserError(
            f"the mask {name} is black all over, so nothing would be edited; paint white where to edit"
        )
    return small


def otsu_threshold(values: Tensor) -> float:
    """The threshold that parts values in [0, 1] into two groups as different as can be (Otsu 1979)."""
    histogram = torch.histc(values.float(), bins=64, min=0, max=1)
    centres = (torch.arange(64, device=values.device) + 0.5) / 64
    below = histogram.cumsum(0)
    above = below[-1] - below
    moment = (histogram * centres).cumsum(0)
    gap = moment / below.clamp(min=1) - (moment[-1] - moment) / above.clamp(min=1)
    return float((torch.argmax(below * above * gap.square()) + 1) / 64)


def _side(latents: float, scale: int) -> int:
    """The side of a patch in pixels, odd, from its side in latents of so many pixels."""
    return (int(latents * scale) - 1) | 1


def _smooth(values: Tensor, side: int = 3) -> Tensor:
    """The mean over side x side neighbours (..., h, w), side odd; the border repeats."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    padded = F.pad(planes, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1).reshape(values.shape)


def _pool(values: Tensor, side: int) -> Tensor:
    """The maximum over side x side neighbours (..., h, w), side odd."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    return F.max_pool2d(planes, side, stride=1, padding=side // 2).reshape(values.shape)


def _opened(values: Tensor, side: int) -> Tensor:
    """The morphological opening (..., h, w): what is narrower than side, odd, goes; what is wider stays as it is."""
    return _pool(-_pool(-values, side), side)
