"""Stable Diffusion 1.x and 2.x: a UNet, one CLIP text encoder, noise or v-prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import (
    ANY_CLASS,
    CLIP_TOKENIZERS,
    check_diffusion_scheduler,
    check_unet,
    square_side,
)


class StableDiffusion(DiffusionModel):
    """Stable Diffusion 1.x and 2.x."""

    pipeline = "StableDiffusionPipeline"
    parts: ClassVar[Mapping[str, Sequence[str]]] = {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "scheduler": ANY_CLASS,
    }
    addition: ClassVar[str | None] = None  # the UNet's addition_embed_type

    def __init__(self, pipe: Any, folder: ModelFolder, variant: str | None = None) -> None:
        super().__init__(pipe, folder, variant)
        config = self.denoiser.config
        self.kind = str(self.scheduler_config.get("prediction_type", "epsilon"))
        self.default_size = (square_side(config.sample_size) or 64) * self.vae_scale_factor
        self.embedding_shape = (self.max_length, config.cross_attention_dim)
        self.network_width = config.block_out_channels[0]

    @classmethod
    def check(cls, folder: ModelFolder) -> None:
        """Checks that its UNet and its scheduler are of a plain diffusion model."""
        super().check(folder)
        check_diffusion_scheduler(folder)
        check_unet(folder, cls.addition, cls.text_parts)

    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """The DDIM schedule of the scheduler's config, whatever the size."""
        return Schedule.diffusion(self.scheduler_config, steps)

    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        return Conditioning(self._read(prompts, self.tokenizer, self.pipe.text_encoder)[0].float())

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The UNet's output (B, C, h, w): the noise or v."""
        return self.denoiser(z, t, text.sequence, added_cond_kwargs=self._added(text), return_dict=False)[0]

    def _added(self, text: Conditioning) -> dict[str, Any] | None:
        """What the UNet is given beside the token embeddings."""
        return None
