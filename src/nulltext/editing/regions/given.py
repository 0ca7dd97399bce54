"""A mask that was painted."""

import torch.nn.functional as F
from torch import Tensor

from nulltext.data.frame import Placement
from nulltext.data.masks import read_mask
from nulltext.editing.regions.base import Context, Region
from nulltext.errors import UserError


class Given(Region):
    """The edit's ``mask``: a tensor over the picture's pixels, or a file painted over the photograph."""

    def find(self, context: Context) -> Tensor | None:
        """The mask over the latents. A file goes through the picture's own turn, crop and resize.

        Raises:
            UserError: It cannot be read, or is black all over.
        """
        mask, inversion = context.edit.mask, context.inversion
        if mask is None:
            return None
        if isinstance(mask, Tensor):
            return fit_mask(mask, context.size).to(context.device)
        placement = Placement.from_dict(inversion.placement) if inversion.placement else None
        painted = read_mask(mask, placement, inversion.size)
        return fit_mask(painted, context.size, str(mask)).to(context.device)


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
