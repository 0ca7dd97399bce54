"""What of the picture stays: its own pixels wherever the edit changes nothing visible."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = ((2.0, 0.28), (1.0, 0.55))
"""Patches, as (their side in latents, how far they must move in the mean, in [-1, 1], to be the edit's).

Up to half of it the picture's pixels stay, between them is mixed. Signed differences are averaged, so that errors of
the VAE in both directions cancel out. Higher, and more of the picture stays, but outlines of what was there shine
through what took its place.
"""

WIDE = (2.0, 0.1)
"""The same for a patch that moves as one, each part so far and the same way: a paler sky is visible, blur is not."""

GAP = 1.5
"""Side, in latents, up to which pixels between what the edit changed are the edit's as well: an outline left over."""


def keep_pixels(picture: Tensor, edited: Tensor, unedited: Tensor, mask: Tensor) -> Tensor:
    """The edit where it changes something visible, the picture's own pixels everywhere else.

    What the VAE loses is so lost only where the edit acts, and a mask that is larger than the change does no harm.

    Args:
        picture: What was inverted (3, H, W) in [-1, 1].
        edited: The decoded edit (3, H, W).
        unedited: The decoded reconstruction (3, H, W).
        mask: Where the edit may act (h, w) over the latents.

    Returns:
        (3, H, W).
    """
    side = partial(_side, scale=picture.shape[-2] // mask.shape[0])
    change = edited - unedited
    moved = [(smooth(change, side(patch)).abs(), visible) for patch, visible in VISIBLE]
    smoothed = smooth(change, side(1))
    moved += [(opened(way.clamp(min=0), side(WIDE[0])), WIDE[1]) for way in (smoothed, -smoothed)]
    seen = torch.stack([(2 * far.amax(0) / visible - 1).clamp(0, 1) for far, visible in moved]).amax(0)
    seen = -opened(-seen, side(GAP))
    return torch.lerp(picture, edited, _over_pixels(mask, picture) * seen)


def changed_share(
    edited: Tensor, unedited: Tensor, mask: Tensor, visible: tuple[float, float] = VISIBLE[0]
) -> float:
    """The share of a mask (h, w) over which an edit (3, H, W) differs visibly from the reconstruction.

    Visible is a patch of some side in latents that moves so far in the mean, in [-1, 1].
    """
    patch, far = visible
    side = _side(patch, edited.shape[-2] // mask.shape[0])
    seen = smooth(edited - unedited, side).abs().amax(0) > far
    inside = _over_pixels(mask, edited) > 0.5
    return float((seen & inside).sum() / inside.sum().clamp(min=1))


def _over_pixels(mask: Tensor, picture: Tensor) -> Tensor:
    size = (picture.shape[-2], picture.shape[-1])
    return F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _side(latents: float, scale: int) -> int:
    """The side of a patch in pixels, odd, from its side in latents of so many pixels."""
    return (int(latents * scale) - 1) | 1


def smooth(values: Tensor, side: int = 3) -> Tensor:
    """The mean over side x side neighbours; the border repeats."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    padded = F.pad(planes, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1).reshape(values.shape)


def pool(values: Tensor, side: int) -> Tensor:
    """The maximum over side x side neighbours."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    return F.max_pool2d(planes, side, stride=1, padding=side // 2).reshape(values.shape)


def opened(values: Tensor, side: int) -> Tensor:
    """The morphological opening: what is narrower than side goes; what is wider stays as it is."""
    return pool(-pool(-values, side), side)
