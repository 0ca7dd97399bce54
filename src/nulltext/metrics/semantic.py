"""Metrics that a network scores: CLIP's cosines, DINO's structure distance, LPIPS.

The CLIP score is of Hessel et al. (arXiv 2104.08718), the structure distance of Tumanyan et al. (arXiv 2201.00424,
section 3). PIE-Bench (arXiv 2310.01506) fixes the conventions.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.metrics.base import Metric, Reference
from nulltext.metrics.pixel import Background

TARGET_PROMPT = frozenset({"target_prompt"})


class ClipCosine(Metric):
    """Cosine of CLIP's embeddings of the output and of something else; -1 to 1, raw."""

    digits, network, tables = 4, "clip", ("slides",)

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:
        """Cosines (B,)."""
        return self.net.image_features(outputs) @ self.other(reference)

    @abstractmethod
    def other(self, reference: Reference) -> Tensor:
        """The unit embedding (p,) that the output's is compared with."""


class ClipImageTarget(ClipCosine):
    """Cosine of CLIP's image embeddings of output and target picture; -1 to 1, raw.

    The target picture is the true counterfactual where the benchmark has one, otherwise a plain generation from the
    target prompt.
    """

    name, title, boxed = "clip_image_target", "CLIP img2img target", True
    requires = frozenset({"target"})

    def other(self, reference: Reference) -> Tensor:  # noqa: D102
        return self.net.image_features(reference.target)


class ClipImageSource(ClipCosine):
    """Cosine of CLIP's image embeddings of output and source; -1 to 1, raw."""

    name, title = "clip_image_source", "CLIP img2img source"

    def other(self, reference: Reference) -> Tensor:  # noqa: D102
        return self.net.image_features(reference.source)


class ClipTextTarget(ClipCosine):
    """Cosine of CLIP's embeddings of output and target prompt; -1 to 1, raw."""

    name, title, boxed = "clip_text_target", "CLIP img2text target", True
    requires = TARGET_PROMPT

    def other(self, reference: Reference) -> Tensor:  # noqa: D102
        return self.net.text_features([reference.target_prompt])[0]


class ClipTextSource(ClipCosine):
    """Cosine of CLIP's embeddings of output and source prompt; -1 to 1, raw."""

    name, title = "clip_text_source", "CLIP img2text source"

    def other(self, reference: Reference) -> Tensor:  # noqa: D102
        return self.net.text_features([reference.prompt])[0]


class ClipWhole(ClipTextTarget):
    """100 max(cosine(CLIP(output), CLIP(target prompt)), 0); 0 to 100."""

    name, title, digits, tables, boxed = "clip_whole", "CLIP whole", 2, ("pie",), False

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:  # noqa: D102
        return 100 * super().__call__(outputs, reference).clamp(min=0)


class ClipEdited(ClipWhole):
    """100 max(cosine(CLIP(output times mask), CLIP(target prompt)), 0), black outside the mask; 0 to 100."""

    name, title, requires = "clip_edited", "CLIP edited", TARGET_PROMPT | {"mask"}

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:  # noqa: D102
        assert reference.mask is not None
        values = super().__call__(outputs * reference.mask, reference)
        return values if bool(reference.mask.any()) else torch.full_like(values, torch.nan)


class ClipDirection(Metric):
    """Cosine of CLIP(output) - CLIP(source) and CLIP(target) - CLIP(source prompt); -1 to 1. arXiv 2108.00946."""

    name, title, digits, network, requires = "clip_direction", "CLIP direction", 4, "clip", TARGET_PROMPT

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:  # noqa: D102
        moved = self.net.image_features(outputs) - self.net.image_features(reference.source)  # (B, p)
        before, after = self.net.text_features([reference.prompt, reference.target_prompt])
        return F.cosine_similarity(moved, (after - before)[None])


class StructureDistance(Metric):
    """Mean squared difference of the DINO ViT-B/8 key self-similarities of output and source; 0 to 4.

    Of the last block, 785 tokens. As published: pictures enter as 0 to 255, without division by 255.
    """

    name, title, better, scale = "structure_distance", "Structure distance", "lower", 1e3
    network, tables, published = "dino", ("pie",), True

    def __call__(self, outputs: Tensor, reference: Reference) -> Tensor:  # noqa: D102
        return self.net.distance(outputs, reference.source[None], published=self.published)


class StructureDistanceCorrected(StructureDistance):
    """The structure distance with pictures in [0, 1] before the ImageNet normalisation, as DINO was trained."""

    name, title = "structure_distance_corrected", "Structure distance, corrected"
    tables, published = ("truth",), False


class BackgroundLpips(Background):
    """LPIPS of both pictures times (1 - mask)."""

    name, title, better, scale, network = "background_lpips", "Background LPIPS", "lower", 1e3, "lpips"

    def measure(self, pictures: Tensor, references: Tensor) -> Tensor:  # noqa: D102
        return self.net.distance(pictures, references)
