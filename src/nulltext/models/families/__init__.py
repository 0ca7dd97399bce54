"""The model families, one file each; a family from outside is named by its import path."""

from __future__ import annotations

from nulltext.models.base import DiffusionModel
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.models.families.stable_diffusion_xl import StableDiffusionXL

MODELS: dict[str, type[DiffusionModel]] = {
    family.pipeline: family for family in (StableDiffusion, StableDiffusionXL)
}
"""The family of each diffusers pipeline class."""
