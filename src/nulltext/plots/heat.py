"""Heat maps: where pictures differ, where a word is attended to, the losses of an inversion."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from nulltext.pixels import to_image, to_unit
from nulltext.plots.sheet import DPI, INK, NORMAL, SMALL, points, render

FULL_DIFFERENCE = 0.25  # of the range from black to white; drawn in the palest colour
NO_VALUE = "#ebebeb"


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1], clipped, as colours from black over red to pale yellow: uint8, one more axis of 3."""
    from matplotlib import colormaps

    return colormaps["inferno"](np.clip(values, 0.0, 1.0), bytes=True)[..., :3]


def difference_map(pixels: Tensor, reference: Tensor) -> Image.Image:
    """Where two pictures (3, H, W) in [-1, 1] differ: the mean over colours of the absolute difference, as heat."""
    difference = (to_unit(pixels.float()) - to_unit(reference.float())).abs().mean(0)  # (H, W) in [0, 1]
    return Image.fromarray(heat_colours(difference.cpu().numpy() / FULL_DIFFERENCE))


def side_by_side(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures (3, H, W) in [-1, 1], below them their differences to the first: (3, 2 H, n W) in [0, 1]."""
    upper = torch.cat([to_unit(pixels.float().cpu()) for pixels in pictures], dim=2)
    heats = [np.asarray(difference_map(pixels, pictures[0])) for pixels in pictures]
    lower = torch.from_numpy(np.concatenate(heats, axis=1)).permute(2, 0, 1) / 255
    return torch.cat([upper, lower], dim=1)


def heat_over(pixels: Tensor, attention: Tensor) -> Image.Image:
    """A word's attention (h, w), from its lowest to its highest value, as heat over a faint (3, H, W) in [-1, 1]."""
    span = (attention - attention.min()) / (attention.max() - attention.min()).clamp(min=1e-12)
    fine = F.interpolate(span.float().cpu()[None, None], size=pixels.shape[-2:], mode="bicubic")[0, 0]
    return Image.blend(to_image(pixels), Image.fromarray(heat_colours(fine.numpy())), 0.6)


def heat_map(losses: Sequence[Tensor]) -> Image.Image:
    """The loss of every inner step, logarithmic: a row for each, a column for each timestep, whose (n,) may differ."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = max([1, *(len(column) for column in losses)])
    values = np.full((rows, max(1, len(losses))), np.nan)
    for index, column in enumerate(losses):
        values[: len(column), index] = column.cpu().numpy()
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (known.min(), known.max()) if known.size else (1e-6, 1e-5)
    figure = Figure(figsize=(9.6, 4.2), dpi=DPI)
    axes = figure.add_axes((80 / 960, 92 / 420, 720 / 960, 280 / 420))
    colours = colormaps["inferno"].with_extremes(bad=NO_VALUE)
    shown = np.ma.masked_where(~(values > 0), values)
    norm = LogNorm(low, max(high, low * 1.01))
    drawn = axes.imshow(shown, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    axes.locator_params(integer=True)
    axes.set_xlabel("timestep, 0 the noisiest", fontsize=points(SMALL), color=INK)
    axes.set_ylabel("inner step", fontsize=points(SMALL), color=INK)
    axes.set_title("loss of each inner step", loc="left", fontsize=points(NORMAL))
    figure.colorbar(drawn, cax=figure.add_axes((816 / 960, 92 / 420, 20 / 960, 280 / 420)))
    for each in figure.axes:
        each.tick_params(labelsize=points(SMALL))
    return render(figure)
