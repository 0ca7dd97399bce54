"""Stable Diffusion XL: two text encoders, a pooled embedding, and the picture's size beside the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nulltext.models.conditioning import Conditioning
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.models.folder.parts import CLIP_TOKENIZERS


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL. Extras: ``pooled`` (B, p), and ``time_ids`` (B, 6): original size, crop, target size."""

    pipeline = "StableDiffusionXLPipeline"
    parts: ClassVar[Mapping[str, Sequence[str]]] = {
        **StableDiffusion.parts,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
    }
    text_parts = ("text_encoder", "text_encoder_2")
    addition = "text_time"

    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        """Both encoders are read one layer before the last; the second gives the pooled embedding."""
        sequences = []
        tokenizers = (self.tokenizer, self.pipe.tokenizer_2)
        for tokenizer, encoder in zip(tokenizers, self._text_encoders(), strict=True):
            output = self._read(prompts, tokenizer, encoder, output_hidden_states=True)
            sequences.append(output.hidden_states[-2].float())
        sequence, pooled = torch.cat(sequences, dim=-1), output[0].float()  # (B, L, d1 + d2), (B, p)
        if self.pipe.config.force_zeros_for_empty_prompt:
            full = torch.tensor([prompt != "" for prompt in prompts], device=self.device)
            sequence, pooled = sequence * full[:, None, None], pooled * full[:, None]
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
        return Conditioning(sequence, {"pooled": pooled, "time_ids": time_ids.expand(len(prompts), 6)})

    def _added(self, text: Conditioning) -> dict[str, Tensor | Any]:
        return {"text_embeds": text.extras["pooled"], "time_ids": text.extras["time_ids"]}
