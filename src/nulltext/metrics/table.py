"""Every metric of the package: a row says what it is, what it needs, and how tables print it.

The CLIP score is of Hessel et al. (arXiv 2104.08718), the structure distance of Tumanyan et al. (arXiv 2201.00424,
section 3). PIE-Bench (arXiv 2310.01506) fixes the conventions.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.metrics.base import Metric
from nulltext.metrics.pixel import mse, psnr, ssim

Score = Callable[[Any, Tensor, Any], Tensor]  # (the network, outputs (B, 3, H, W), the reference) to (B,)


def _to(picture: str, measure: Callable[..., Tensor]) -> Score:
    """Compares the output with a picture of the reference."""
    return lambda net, outputs, ref: measure(outputs, getattr(ref, picture).expand_as(outputs))


def _background(measure: Callable[..., Tensor] | None = None) -> Score:
    """Compares both pictures times (1 - mask), over the whole picture, as PIE-Bench does; NaN without a background.

    The network measures by default.
    """

    def score(net: Any, outputs: Tensor, ref: Any) -> Tensor:
        rest = 1 - ref.mask
        values = (measure or net)(outputs * rest, ref.source.expand_as(outputs) * rest)
        return values if bool(rest.any()) else torch.full_like(values, torch.nan)

    return score


def _cosine(other: Callable[[Any, Any], Tensor]) -> Score:
    """CLIP's cosine of the output and the unit embedding (p,) of something else."""
    return lambda net, outputs, ref: net.image_features(outputs) @ other(net, ref)


_to_target = _cosine(lambda net, ref: net.text_features([ref.target_prompt])[0])


def _whole(net: Any, outputs: Tensor, ref: Any) -> Tensor:
    return 100 * _to_target(net, outputs, ref).clamp(min=0)


def _edited(net: Any, outputs: Tensor, ref: Any) -> Tensor:
    values = _whole(net, outputs * ref.mask, ref)
    return values if bool(ref.mask.any()) else torch.full_like(values, torch.nan)


def _leakage(net: Any, outputs: Tensor, ref: Any) -> Tensor:
    rest = 1 - ref.mask
    gain = _to_target(net, outputs * rest, ref) - _to_target(net, (ref.source * rest)[None], ref)
    return 100 * gain if bool(rest.any()) else torch.full_like(gain, torch.nan)


def _direction(net: Any, outputs: Tensor, ref: Any) -> Tensor:
    moved = net.image_features(outputs) - net.image_features(ref.source)  # (B, p)
    before, after = net.text_features([ref.prompt, ref.target_prompt])
    return F.cosine_similarity(moved, (after - before)[None])


_DB, _COSINE, _BOXED = {"unit": "dB"}, {"digits": 4}, {"boxed": True}
_E2, _E3, _E4 = {"scale": 1e2}, {"scale": 1e3, "better": "lower"}, {"scale": 1e4, "better": "lower"}
# fmt: off
_ROWS: tuple[tuple[str, str, str, str, str | None, dict[str, Any], Score, str], ...] = (
    # name, title, its tables, what it requires, its network, how it is printed, its score; its definition
    ("psnr", "PSNR", "reconstruction", "", None, _DB, _to("source", psnr),
     "10 log10(1 / MSE(output, source)), whole picture; 0 to 100, a ceiling."),
    ("ssim", "SSIM", "reconstruction slides", "", None, _COSINE | _BOXED, _to("source", ssim),
     "SSIM(output, source), whole picture; -1 to 1. Wang et al. 2004."),
    ("mse", "MSE", "reconstruction", "", None, _E4, _to("source", mse),
     "Mean (output - source)^2, whole picture; 0 to 1 before x1e4."),
    ("clip_image_target", "CLIP img2img target", "slides", "target", "clip", _COSINE | _BOXED,
     _cosine(lambda net, ref: net.image_features(ref.target)),
     "Cosine of CLIP's image embeddings of output and target picture; -1 to 1, raw. The target picture is the true "
     "counterfactual where the benchmark has one, otherwise a plain generation from the target prompt."),
    ("clip_image_source", "CLIP img2img source", "slides", "", "clip", _COSINE,
     _cosine(lambda net, ref: net.image_features(ref.source)),
     "Cosine of CLIP's image embeddings of output and source; -1 to 1, raw."),
    ("clip_text_target", "CLIP img2text target", "slides", "target_prompt", "clip", _COSINE | _BOXED, _to_target,
     "Cosine of CLIP's embeddings of output and target prompt; -1 to 1, raw."),
    ("clip_text_source", "CLIP img2text source", "slides", "", "clip", _COSINE,
     _cosine(lambda net, ref: net.text_features([ref.prompt])[0]),
     "Cosine of CLIP's embeddings of output and source prompt; -1 to 1, raw."),
    ("clip_direction", "CLIP direction", "further", "target_prompt", "clip", _COSINE, _direction,
     "Cosine of CLIP(output) - CLIP(source) and CLIP(target) - CLIP(source prompt); -1 to 1. arXiv 2108.00946."),
    ("leakage", "Leakage", "further", "target_prompt mask", "clip", {"better": "lower"}, _leakage,
     "CLIP gain outside the mask: 100 (cosine(CLIP(output times (1 - mask)), CLIP(target prompt)) - the same of the "
     "source); 0 where the edit stayed inside."),
    ("structure_distance", "Structure distance", "pie", "", "dino", _E3,
     lambda net, outputs, ref: net.distance(outputs, ref.source[None], published=True),
     "Mean squared difference of the DINO ViT-B/8 key self-similarities of output and source; 0 to 4. Of the last "
     "block, 785 tokens. As published: pictures enter as 0 to 255, without division by 255."),
    ("background_psnr", "Background PSNR", "pie", "mask", None, _DB | _BOXED, _background(psnr),
     "PSNR of both pictures times (1 - mask), over the whole picture (PIE-Bench: a large mask raises it)."),
    ("background_lpips", "Background LPIPS", "pie", "mask", "lpips", _E3, _background(),
     "LPIPS of both pictures times (1 - mask)."),
    ("background_mse", "Background MSE", "pie", "mask", None, _E4, _background(mse),
     "MSE of both pictures times (1 - mask)."),
    ("background_ssim", "Background SSIM", "pie", "mask", None, _E2, _background(ssim),
     "SSIM of both pictures times (1 - mask)."),
    ("clip_whole", "CLIP whole", "pie", "target_prompt", "clip", {}, _whole,
     "100 max(cosine(CLIP(output), CLIP(target prompt)), 0); 0 to 100."),
    ("clip_edited", "CLIP edited", "pie", "target_prompt mask", "clip", {}, _edited,
     "100 max(cosine(CLIP(output times mask), CLIP(target prompt)), 0), black outside the mask; 0 to 100."),
    ("counterfactual_psnr", "Counterfactual PSNR", "truth", "truth", None, _DB | _BOXED, _to("truth", psnr),
     "PSNR(output, true counterfactual)."),
    ("counterfactual_psnr_inside", "Counterfactual PSNR inside the mask", "truth", "truth mask", None, _DB | _BOXED,
     lambda net, outputs, ref: psnr(outputs, ref.truth, ref.mask[None]),
     "PSNR(output, true counterfactual) over the pixels inside the mask alone."),
    ("counterfactual_ssim", "Counterfactual SSIM", "truth", "truth", None, _COSINE, _to("truth", ssim),
     "SSIM(output, true counterfactual)."),
    ("background_psnr_outside", "Background PSNR over its own pixels", "truth", "mask", None, _DB,
     lambda net, outputs, ref: psnr(outputs, ref.source, 1 - ref.mask[None]),
     "PSNR over the pixels outside the mask alone, so that the size of the mask does not count."),
    ("structure_distance_corrected", "Structure distance, corrected", "truth", "", "dino", _E3,
     lambda net, outputs, ref: net.distance(outputs, ref.source[None], published=False),
     "The structure distance with pictures in [0, 1] before the ImageNet normalisation, as DINO was trained."),
)
# fmt: on


def _class(row: tuple[Any, ...]) -> type[Metric]:
    name, title, tables, requires, network, printed, score, definition = row
    facts = {
        "name": name,
        "title": title,
        "tables": tuple(tables.split()),
        "requires": frozenset(requires.split()),
        "network": network,
        "__call__": lambda self, outputs, reference: score(self.net, outputs, reference),
        "__doc__": definition,
    }
    return type(name, (Metric,), facts | printed)


METRICS: dict[str, type[Metric]] = {row[0]: _class(row) for row in _ROWS}
"""Every metric by its name, in the order of the tables."""
