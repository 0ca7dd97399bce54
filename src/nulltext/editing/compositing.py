"""What of the picture stays: its own pixels wherever the edit changes nothing visible."""

import torch
import torch.nn.functional as F
from torch import Tensor

VISIBLE = (2.0, 0.28)
"""A patch, as (its side in latents, how far it must move in the mean, in [-1, 1]), that makes an edit worth looking at.

Signed differences are averaged, so that errors of the VAE in both directions cancel out.
"""
WIDE = (2.0, 0.1)
"""The same for a patch that moves as one, each part so far and the same way: a paler sky is visible, blur is not."""
CLEAR = 0.32
"""A pixel that moves so far, in [-1, 1], with its neighbours, is the edit's, and so is all around it that ..."""
CHANGED = 0.13
"""... moves so far, up to where it does not: half of an old outline would shine through."""
FINE = 0.375
"""Side, in latents, of the neighbourhood that pixels are averaged over; thinner lines alone are the VAE's."""
GAP = 1.125
"""Side, in latents, up to which pixels between what the edit changed are the edit's as well: an outline left over."""


def keep_pixels(picture: Tensor, edited: Tensor, unedited: Tensor, mask: Tensor) -> Tensor:
    """The edit where it changes something visible, the picture's own pixels everywhere else.

    What the VAE loses is so lost only where the edit acts, and a mask that is larger than the change does no harm. What
    changed is found by two thresholds, as Canny's edges are: whole shapes, from where they are clear to their end.
    The picture, the decoded edit and the decoded reconstruction are (3, H, W) in [-1, 1], the mask (h, w).
    """
    scale, change = picture.shape[-2] // mask.shape[0], edited - unedited
    fine, (patch, visible) = _side(FINE, scale), WIDE
    far = smooth(change, fine).abs().amax(0)
    seen = _reached(opened((far > CLEAR).float(), fine), opened((far > CHANGED).float(), fine))
    smoothed = smooth(change, _side(1, scale))
    wide = torch.stack([opened(way.clamp(min=0), _side(patch, scale)) for way in (smoothed, -smoothed)])
    seen = torch.maximum(seen, (2 * wide.amax(dim=(0, 1)) / visible - 1).clamp(0, 1))
    seen = smooth(pool(-opened(-seen, _side(GAP, scale)), fine), fine)
    return torch.lerp(picture, edited, _over_pixels(mask, picture) * seen)


def _reached(seeds: Tensor, within: Tensor) -> Tensor:
    """The parts of ``within`` (H, W), 0 or 1, that hold a seed."""
    seeds, before = seeds * within, torch.zeros_like(seeds)
    while not torch.equal(seeds, before):
        seeds, before = torch.minimum(pool(seeds, 3), within), seeds
    return seeds


def changed_share(
    edited: Tensor, unedited: Tensor, mask: Tensor, visible: tuple[float, float] = VISIBLE
) -> float:
    """The share of a mask (h, w) over which an edit (3, H, W) differs visibly, see ``VISIBLE``."""
    patch, far = visible
    change = smooth(edited - unedited, _side(patch, edited.shape[-2] // mask.shape[0]))
    inside = _over_pixels(mask, edited) > 0.5
    return float(((change.abs().amax(0) > far) & inside).sum() / inside.sum().clamp(min=1))


def _over_pixels(mask: Tensor, picture: Tensor) -> Tensor:
    size = (picture.shape[-2], picture.shape[-1])
    return F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _side(latents: float, scale: int) -> int:
    """The side of a patch in pixels, odd, from its side in latents of so many pixels."""
    return max(int(latents * scale) - 1, 0) | 1


def smooth(values: Tensor, side: int = 3) -> Tensor:
    """The mean over side x side neighbours; the border repeats."""
    padded = F.pad(values.reshape(1, -1, *values.shape[-2:]), (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1).reshape(values.shape)


def pool(values: Tensor, side: int) -> Tensor:
    """The maximum over side x side neighbours."""
    planes = values.reshape(1, -1, *values.shape[-2:])
    return F.max_pool2d(planes, side, stride=1, padding=side // 2).reshape(values.shape)


def opened(values: Tensor, side: int) -> Tensor:
    """The morphological opening: what is narrower than side goes; what is wider stays as it is."""
    return pool(-pool(-values, side), side)
