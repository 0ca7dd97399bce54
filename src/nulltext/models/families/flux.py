"""Flux.1 under true guidance: T5 is read token by token, CLIP gives the pooled embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nulltext.models.conditioning import Conditioning
from nulltext.models.families.flow import EULER, T5_TOKENIZERS, PackedFlow
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import CLIP_TOKENIZERS, refuse


class Flux(PackedFlow):
    """Flux.1. The sequence is T5's; extra: ``pooled`` (B, p). Its guidance input, where it has one, is always 1."""

    pipeline = "FluxPipeline"
    parts: ClassVar[Mapping[str, Sequence[str]]] = {
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("T5EncoderModel",),
        "tokenizer_2": T5_TOKENIZERS,
        "scheduler": EULER,
    }
    text_parts = ("text_encoder", "text_encoder_2")
    tokens_of = "tokenizer_2"

    @classmethod
    def check(cls, folder: ModelFolder) -> None:
        """As for every flow; refuses FLUX.1-schnell, whose levels do not shift and which is told no guidance."""
        super().check(folder)
        guided = folder.config("transformer").get("guidance_embeds")
        if not guided and not folder.config("scheduler").get("use_dynamic_shifting"):
            raise refuse(
                folder,
                "is distilled to few steps without guidance, so it has no null text to learn; FlowEdit and "
                "RF-Inversion need none; take black-forest-labs/FLUX.1-dev",
            )

    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        pipe = self.pipe
        pooled = self._read(prompts, pipe.tokenizer, pipe.text_encoder).pooler_output
        sequence = self._read(prompts, pipe.tokenizer_2, pipe.text_encoder_2)[0]
        return Conditioning(sequence.float(), {"pooled": pooled.float()})

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The velocity (B, C, h, w)."""
        guided: Any = self.denoiser.config.guidance_embeds
        guidance = torch.ones(len(z), device=z.device) if guided else None
        return self._through(z, t, text, pooled_projections=text.extras["pooled"], guidance=guidance)
