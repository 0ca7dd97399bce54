"""Chroma: Flux's transformer without pooled text and without a guidance input; padding of the text is masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from nulltext.models.conditioning import Conditioning
from nulltext.models.families.flow import EULER, T5_TOKENIZERS, PackedFlow


class Chroma(PackedFlow):
    """Chroma. The sequence is T5's; extra: ``mask`` (B, L), 1 up to the first token of padding."""

    pipeline = "ChromaPipeline"
    parts: ClassVar[Mapping[str, Sequence[str]]] = {
        "transformer": ("ChromaTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": T5_TOKENIZERS,
        "scheduler": EULER,
    }

    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        """T5 does not see its padding; the transformer sees the first token of it."""
        cut = self.tokenizer(
            prompts, padding="max_length", max_length=self.max_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        encoder = self.pipe.text_encoder
        with self._awake(encoder):
            sequence = encoder(cut.input_ids, attention_mask=cut.attention_mask)[0].float()
        places = torch.arange(self.max_length, device=self.device)
        mask = places <= cut.attention_mask.sum(1, keepdim=True)
        return Conditioning(sequence, {"mask": mask.float()})

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The velocity (B, C, h, w)."""
        image = torch.ones(len(z), z.shape[-2] * z.shape[-1] // 4, device=z.device)
        return self._through(z, t, text, attention_mask=torch.cat([text.extras["mask"], image], dim=1))
