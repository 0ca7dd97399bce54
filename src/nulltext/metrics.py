"""Every figure that `test` reports, with its formula, range and source.

Pictures are (B, 3, H, W) float tensors in [0, 1], masks (B, 1, H, W) with 1 where the edit is to happen.
Each function answers one value a picture. NaN means "undefined for this picture" (no background, no edited
part); means skip NaNs and count them. A metric that cannot be had, because a package or weights are missing,
is left out by name with the reason and never becomes a zero.

Sources: PIE-Bench is Ju et al., "Direct Inversion" (arXiv 2310.01506), whose evaluation script fixes the
conventions; SSIM is Wang et al. 2004; the structure distance is Tumanyan et al., "Splicing ViT Features"
(arXiv 2201.00424), section 3; the CLIP score is Hessel et al. (arXiv 2104.08718).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

PSNR_CEILING = 100.0
"""dB that two identical pictures are given, so that means stay finite (their PSNR is infinite)."""


@dataclass(frozen=True)
class Metric:
    """What a column of the results means."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    scale: float
    definition: str


_UP: Literal["higher"] = "higher"
_DOWN: Literal["lower"] = "lower"

METRICS: tuple[Metric, ...] = (
    Metric("ssim", "SSIM", _UP, 1, "SSIM(output, source), whole picture; -1 to 1. Wang et al. 2004."),
    Metric(
        "psnr", "PSNR, dB", _UP, 1, "10 log10(1 / MSE(output, source)), whole picture; 0 to 100, a ceiling."
    ),
    Metric("mse", "MSE x1e4", _DOWN, 1e4, "mean (output - source)^2, whole picture; 0 to 1 before x1e4."),
    Metric(
        "clip_image_target",
        "CLIP img2img target",
        _UP,
        1,
        "cosine of CLIP's image embeddings of output and target picture (the true counterfactual where the "
        "benchmark has one, otherwise a plain generation from the target prompt); -1 to 1, raw.",
    ),
    Metric(
        "clip_image_source", "CLIP img2img source", _UP, 1, "cosine(CLIP(output), CLIP(source)); -1 to 1."
    ),
    Metric("clip_text_target", "CLIP img2text target", _UP, 1, "cosine(CLIP(output), CLIP(target prompt))."),
    Metric("clip_text_source", "CLIP img2text source", _UP, 1, "cosine(CLIP(output), CLIP(source prompt))."),
    Metric(
        "structure_distance",
        "Structure distance x1e3",
        _DOWN,
        1e3,
        "mean squared difference of the DINO ViT-B/8 key self-similarities (last block, 785 tokens) of "
        "output and source; 0 to 4. As published: pictures enter as 0 to 255, without division by 255.",
    ),
    Metric(
        "structure_distance_corrected",
        "Structure distance, corrected x1e3",
        _DOWN,
        1e3,
        "the same with pictures in [0, 1] before the ImageNet normalisation, as DINO was trained.",
    ),
    Metric(
        "background_psnr",
        "Background PSNR, dB",
        _UP,
        1,
        "PSNR of both pictures times (1 - mask), over the whole picture (PIE-Bench: a large mask raises it).",
    ),
    Metric(
        "background_lpips", "Background LPIPS x1e3", _DOWN, 1e3, "LPIPS of both pictures times (1 - mask)."
    ),
    Metric("background_mse", "Background MSE x1e4", _DOWN, 1e4, "MSE of both pictures times (1 - mask)."),
    Metric("background_ssim", "Background SSIM x1e2", _UP, 1e2, "SSIM of both pictures times (1 - mask)."),
    Metric(
        "background_psnr_outside",
        "Background PSNR over its own pixels, dB",
        _UP,
        1,
        "PSNR over the pixels outside the mask alone, so that the size of the mask does not count.",
    ),
    Metric(
        "clip_whole", "CLIP whole", _UP, 1, "100 max(cosine(CLIP(output), CLIP(target prompt)), 0); 0 to 100."
    ),
    Metric("clip_edited", "CLIP edited", _UP, 1, "the same for output times mask, black outside."),
    Metric("counterfactual_psnr", "Counterfactual PSNR, dB", _UP, 1, "PSNR(output, true counterfactual)."),
    Metric("counterfactual_ssim", "Counterfactual SSIM", _UP, 1, "SSIM(output, true counterfactual)."),
    Metric(
        "counterfactual_psnr_inside",
        "Counterfactual PSNR inside the mask, dB",
        _UP,
        1,
        "PSNR(output, true counterfactual) over the pixels inside the mask alone.",
    ),
)
"""Every metric, in the order of the tables; `scale` is what a table multiplies the raw value with."""


def mse(pictures: Tensor, references: Tensor) -> Tensor:
    """Mean squared error over channels and pixels; 0 to 1, lower is nearer.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,).
    """
    return (pictures - references).square().flatten(1).mean(1)


def psnr(pictures: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) in dB; 0 to `PSNR_CEILING`, higher is nearer.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,); identical pictures get the ceiling.
    """
    values = peak_signal_noise_ratio(pictures, references, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_CEILING)


def ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """Structural similarity, Gaussian window 11 x 11 with sigma 1.5, K = (0.01, 0.03), mean over the picture.

    SSIM = (2 mu_x mu_y + c1)(2 cov_xy + c2) / ((mu_x^2 + mu_y^2 + c1)(var_x + var_y + c2)); -1 to 1.

    Args:
        pictures: (B, 3, H, W) in [0, 1], at least 11 pixels a side.
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,).
    """
    values = structural_similarity_index_measure(pictures, references, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(pictures))


def psnr_over(pictures: Tensor, references: Tensor, where: Tensor) -> Tensor:
    """PSNR over the pixels of a mask alone.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].
        where: (B, 1, H, W), 1 for the pixels that count.

    Returns:
        (B,); NaN where no pixel counts.
    """
    error = ((pictures - references).square().mean(1, keepdim=True) * where).flatten(1).sum(1)
    error = error / where.flatten(1).sum(1)  # 0 / 0 is NaN, as it should be
    return (-10 * error.log10()).clamp(max=PSNR_CEILING)


def background_metrics(outputs: Tensor, sources: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well the part that was not to change was kept, PIE-Bench's way and over the unmasked pixels.

    Args:
        outputs: (B, 3, H, W) in [0, 1].
        sources: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 where the edit is meant to happen.

    Returns:
        Four (B,) tensors by name; NaN where the mask leaves no background.
    """
    keep = 1 - mask
    undefined = keep.flatten(1).sum(1) == 0
    ours, theirs = outputs * keep, sources * keep
    values = {
        "background_psnr": psnr(ours, theirs),
        "background_mse": mse(ours, theirs),
        "background_ssim": ssim(ours, theirs),
        "background_psnr_outside": psnr_over(outputs, sources, keep),
    }
    return {name: value.masked_fill(undefined, torch.nan) for name, value in values.items()}
