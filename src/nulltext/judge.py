"""All metrics of the outputs of an edit, by the scorers that this machine can have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from nulltext.errors import UserError
from nulltext.metrics import METRICS, background_metrics, mse, psnr, psnr_over, ssim
from nulltext.scorers import ClipScorer, PerceptualScorer, StructureScorer

Scorer = TypeVar("Scorer")

_CLIP = tuple(m.name for m in METRICS if m.name.startswith("clip_"))
_STRUCTURE = tuple(m.name for m in METRICS if m.name.startswith("structure_"))


@dataclass(frozen=True)
class Reference:
    """What the outputs of one edit are measured against; all pictures in [0, 1]."""

    source: Tensor  # (3, H, W)
    prompt: str
    target_prompt: str
    mask: Tensor | None = None  # (1, H, W), 1 where the edit is meant to happen
    counterfactual: Tensor | None = None  # (3, H, W), the true answer
    target_picture: Tensor | None = None  # (3, H, W), stands in for the answer in `clip_image_target`


@dataclass
class Judge:
    """The metrics that this machine can have, and by name those that it cannot, with the reason."""

    clip: ClipScorer | None = None
    structure: StructureScorer | None = None
    perceptual: PerceptualScorer | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        clip: str | None = "farmyard",
        dino: str | None = None,
        lpips: str | None = None,
        device: str | torch.device = "cpu",
    ) -> Judge:
        """Load each model that is named and can be had; note why the others are absent.

        Args:
            clip: CLIP model, a folder or hub id; `farmyard` is the one that the package ships.
            dino: ViT for the structure distance, a folder or hub id (`facebook/dino-vitb8`).
            lpips: LPIPS network (`squeeze`, `alex`, `vgg`); needs the package `lpips`.
            device: Where they compute.

        Raises:
            UserError: The farmyard's CLIP is missing or damaged.
        """
        judge = cls()
        judge.clip = judge._load(
            "CLIP", "metrics.clip", clip, lambda n: ClipScorer.from_pretrained(n, device), _CLIP
        )
        judge.structure = judge._load(
            "DINO", "metrics.dino", dino, lambda n: StructureScorer.from_pretrained(n, device), _STRUCTURE
        )
        judge.perceptual = judge._load(
            "LPIPS", "metrics.lpips", lpips, lambda n: PerceptualScorer(n, device), ("background_lpips",)
        )
        return judge

    def _load(
        self, title: str, option: str, name: str | None, load: Callable[[str], Scorer], metrics: Sequence[str]
    ) -> Scorer | None:
        """One scorer, or None and a reason under each metric that needs it."""
        if name is None:
            reason = f"no {title} model was named ({option})"
        else:
            try:
                return load(name)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
                reason = f"{title} model '{name}' could not be loaded: {first_line}"
        self.absent.update(dict.fromkeys(metrics, reason))
        return None

    def score(self, outputs: Tensor, reference: Reference) -> list[dict[str, float]]:
        """All metrics of several outputs of one edit.

        Args:
            outputs: (B, 3, H, W) in [0, 1].
            reference: The source, prompts, mask and true answer of the edit.

        Returns:
            B dictionaries from metric to value; those that need a mask or a true answer only where
            there is one.

        Raises:
            UserError: An output's size is not the source's.
        """
        if outputs.shape[1:] != reference.source.shape:
            raise UserError(
                f"outputs are {tuple(outputs.shape[1:])}, the source is {tuple(reference.source.shape)}"
            )
        source = reference.source.expand_as(outputs)
        values = {"psnr": psnr(outputs, source), "ssim": ssim(outputs, source), "mse": mse(outputs, source)}
        values |= self._masked(outputs, source, reference) | self._counterfactual(outputs, reference)
        values |= self._clip(outputs, reference)
        if self.structure is not None:
            values["structure_distance"] = self.structure.distance(outputs, source, published=True)
            values["structure_distance_corrected"] = self.structure.distance(outputs, source, published=False)
        order = [m.name for m in METRICS if m.name in values]
        return [{name: float(values[name][i]) for name in order} for i in range(len(outputs))]

    def _masked(self, outputs: Tensor, source: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Metrics of the background."""
        if reference.mask is None:
            return {}
        mask = reference.mask.expand(len(outputs), -1, -1, -1)
        values = background_metrics(outputs, source, mask)
        if self.perceptual is not None:
            undefined = values["background_mse"].isnan()
            lpips = self.perceptual.distance(outputs * (1 - mask), source * (1 - mask))
            values["background_lpips"] = lpips.masked_fill(undefined, torch.nan)
        return values

    def _counterfactual(self, outputs: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Distance to the true answer, where it is known."""
        if reference.counterfactual is None:
            return {}
        truth = reference.counterfactual.expand_as(outputs)
        values = {"counterfactual_psnr": psnr(outputs, truth), "counterfactual_ssim": ssim(outputs, truth)}
        if reference.mask is not None:
            inside = reference.mask.expand(len(outputs), -1, -1, -1)
            values["counterfactual_psnr_inside"] = psnr_over(outputs, truth, inside)
        return values

    def _clip(self, outputs: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Raw cosines as in the slides' table, and PIE-Bench's two scores times 100."""
        if self.clip is None:
            return {}
        images = self.clip.image_features(outputs)  # (B, p)
        source_text, target_text = self.clip.text_features([reference.prompt, reference.target_prompt])
        values = {
            "clip_image_source": images @ self.clip.image_features(reference.source[None])[0],
            "clip_text_target": images @ target_text,
            "clip_text_source": images @ source_text,
            "clip_whole": 100 * (images @ target_text).clamp(min=0),
        }
        target_picture = (
            reference.counterfactual if reference.counterfactual is not None else reference.target_picture
        )
        if target_picture is not None:
            values["clip_image_target"] = images @ self.clip.image_features(target_picture[None])[0]
        if reference.mask is not None:
            edited = self.clip.image_features(outputs * reference.mask) @ target_text
            nothing = bool(reference.mask.sum() == 0)
            values["clip_edited"] = (100 * edited.clamp(min=0)).masked_fill(torch.tensor(nothing), torch.nan)
        return values
