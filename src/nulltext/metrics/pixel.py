"""Metrics of pixels: MSE, PSNR, SSIM, over the whole picture, the background, and against the true picture.

Each picture has its own value; a table's mean is the mean of these values, never the value of a mean error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from nulltext.metrics.base import Metric, Reference

PSNR_CEILING = 100.0
"""PSNR of equal pictures in dB, which is infinite by its formula; so that means stay finite."""


def mse(pictures: Tensor, references: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared error over channels and pixels; 0 to 1.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].
        where: (B, 1, H, W), 1 for the pixels that count; None: all.

    Returns:
        (B,); NaN where no pixel counts.
    """
    error = (pictures - references).square()
    if where is None:
        return error.flatten(1).mean(1)
    return (error.mean(1, keepdim=True) * where).flatten(1).sum(1) / where.flatten(1).sum(1)


def psnr(pictures: Tensor, references: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB; 0 to ``PSNR_CEILING``. Arguments as of ``mse``."""
    return (-10 * mse(pictures, references, where).log10()).clamp(max=PSNR_CEILING)


def ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), averaged over the picture; -1 to 1.

    SSIM = (2 mu_x mu_y + c1)(2 cov_xy + c2) / ((mu_x^2 + mu_y^2 + c1)(var_x + var_y + c2)), in a Gaussian window of
    11 x 11 pixels with sigma 1.5 and K = (0.01, 0.03).

    Args:
        pictures: (B, 3, H, W) in [0, 1], at least 11 pixels on each side.
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    values = similarity(pictures, references, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(pictures))


class PixelMetric(Metric):
    """Compares the output with another picture by one of the functions above."""

    measure: ClassVar[Callable[..., Tensor]]

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:
        """The measure (B,)."""
        return self.measure(outputs, self.other(reference).expand_as(outputs))

    def other(self, reference: Reference) -> Tensor:
        """The picture (3, H, W) to compare with: the source."""
        return reference.source


class Psnr(PixelMetric):
    """10 log10(1 / MSE(output, source)), whole picture; 0 to 100, a ceiling."""

    name, title, unit, tables = "psnr", "PSNR", "dB", ("reconstruction",)
    measure = staticmethod(psnr)


class Ssim(PixelMetric):
    """SSIM(output, source), whole picture; -1 to 1. Wang et al. 2004."""

    name, title, digits, tables, boxed = "ssim", "SSIM", 4, ("reconstruction", "slides"), True
    measure = staticmethod(ssim)


class Mse(PixelMetric):
    """Mean (output - source)^2, whole picture; 0 to 1 before x1e4."""

    name, title, better, scale, tables = "mse", "MSE", "lower", 1e4, ("reconstruction",)
    measure = staticmethod(mse)


class Background(PixelMetric):
    """Compares both pictures times (1 - mask), over the whole picture, as PIE-Bench does."""

    requires, tables = frozenset({"mask"}), ("pie",)

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:
        """The measure (B,); NaN without a background."""
        assert reference.mask is not None
        keep = (1 - reference.mask).expand(len(outputs), -1, -1, -1)  # (B, 1, H, W)
        values = self.compare(outputs, reference.source.expand_as(outputs), keep)
        return values if bool(keep[0].any()) else torch.full_like(values, torch.nan)

    def compare(self, outputs: Tensor, sources: Tensor, keep: Tensor) -> Tensor:
        """The value (B,) where there is a background; ``keep`` (B, 1, H, W) is 1 there."""
        return self.measure(outputs * keep, sources * keep)


class BackgroundPsnr(Background):
    """PSNR of both pictures times (1 - mask), over the whole picture (PIE-Bench: a large mask raises it)."""

    name, title, unit, boxed = "background_psnr", "Background PSNR", "dB", True
    measure = staticmethod(psnr)


class BackgroundMse(Background):
    """MSE of both pictures times (1 - mask)."""

    name, title, better, scale = "background_mse", "Background MSE", "lower", 1e4
    measure = staticmethod(mse)


class BackgroundSsim(Background):
    """SSIM of both pictures times (1 - mask)."""

    name, title, scale = "background_ssim", "Background SSIM", 1e2
    measure = staticmethod(ssim)


class BackgroundPsnrOutside(Background):
    """PSNR over the pixels outside the mask alone, so that the size of the mask does not count."""

    name, title, unit = "background_psnr_outside", "Background PSNR over its own pixels", "dB"
    tables = ("truth",)

    def compare(self, outputs: Tensor, sources: Tensor, keep: Tensor) -> Tensor:  # noqa: D102
        return psnr(outputs, sources, keep)


class TruthPsnr(PixelMetric):
    """PSNR(output, true counterfactual)."""

    name, title, unit = "counterfactual_psnr", "Counterfactual PSNR", "dB"
    requires, tables, boxed = frozenset({"truth"}), ("truth",), True
    measure: ClassVar[Callable[..., Tensor]] = staticmethod(psnr)

    def other(self, reference: Reference) -> Tensor:
        """The picture (3, H, W) to compare with: the true one."""
        assert reference.truth is not None
        return reference.truth


class TruthPsnrInside(TruthPsnr):
    """PSNR(output, true counterfactual) over the pixels inside the mask alone."""

    name, title = "counterfactual_psnr_inside", "Counterfactual PSNR inside the mask"
    requires = frozenset({"truth", "mask"})

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:  # noqa: D102
        assert reference.mask is not None
        inside = reference.mask.expand(len(outputs), -1, -1, -1)
        return psnr(outputs, self.other(reference).expand_as(outputs), inside)


class TruthSsim(TruthPsnr):
    """SSIM(output, true counterfactual)."""

    name, title, unit, digits, boxed = "counterfactual_ssim", "Counterfactual SSIM", "", 4, False
    measure = staticmethod(ssim)
