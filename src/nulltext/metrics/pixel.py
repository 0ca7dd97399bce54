"""MSE, PSNR and SSIM of pictures (B, 3, H, W) in [0, 1]: (B,), a value of each picture, never of a mean error."""

from __future__ import annotations

from torch import Tensor

PSNR_CEILING = 100.0
"""PSNR of equal pictures in dB, which is infinite by its formula; so that means stay finite."""


def mse(pictures: Tensor, references: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared error over channels and pixels; 0 to 1.

    ``where`` (B, 1, H, W) is 1 for the pixels that count, all by default; NaN where no pixel counts.
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
    11 x 11 pixels, which is the least that a picture has, with sigma 1.5 and K = (0.01, 0.03).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    values = similarity(pictures, references, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(pictures))
