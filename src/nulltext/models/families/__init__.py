"""The model families, one file each; a family from outside is named by its import path."""

from __future__ import annotations

from nulltext.models.base import DiffusionModel
from nulltext.models.families.chroma import Chroma
from nulltext.models.families.flux import Flux
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.models.families.stable_diffusion_3 import StableDiffusion3
from nulltext.models.families.stable_diffusion_xl import StableDiffusionXL

MODELS: dict[str, type[DiffusionModel]] = {
    family.pipeline: family for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux, Chroma)
}
"""The family of each diffusers pipeline class."""

NO_TRUE_GUIDANCE = ("Flux2Pipeline", "SanaSprintPipeline", "LatentConsistencyModelPipeline")
"""Pipelines of models that are guidance-distilled: told the guidance, they have no null text to learn."""
