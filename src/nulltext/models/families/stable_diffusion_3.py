"""Stable Diffusion 3 and 3.5: a transformer of joint attention, two CLIP encoders, and T5 where it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.errors import UserError
from nulltext.models.conditioning import Conditioning
from nulltext.models.families.flow import EULER, T5_TOKENIZERS, FlowTransformer
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import CLIP_TOKENIZERS

T5_TOKENS = 256


class StableDiffusion3(FlowTransformer):
    """Stable Diffusion 3 and 3.5. The sequence is CLIP's tokens, then T5's; extra: ``pooled`` (B, p)."""

    pipeline = "StableDiffusion3Pipeline"
    parts: ClassVar[Mapping[str, Sequence[str]]] = {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer_3": T5_TOKENIZERS,
        "scheduler": EULER,
    }
    optional = frozenset({"text_encoder_3", "tokenizer_3"})
    text_parts = ("text_encoder", "text_encoder_2", "text_encoder_3")
    even_steps = False
    packed = 1

    def __init__(self, pipe: Any, folder: ModelFolder, variant: str | None = None) -> None:
        super().__init__(pipe, folder, variant)
        self.default_size = self.denoiser.config.sample_size * self.vae_scale_factor
        self.encoders = (self.max_length, T5_TOKENS)
        if pipe.tokenizer_3 is not None:
            pipe.tokenizer_3.model_max_length = T5_TOKENS

    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """As for every flow; refuses pictures that are larger than the network's table of positions."""
        most = self.denoiser.config.pos_embed_max_size * self.size_multiple
        if size is not None and max(size) > most:
            raise UserError(
                f"{self.name} knows positions up to {most} pixels; give --data.size {most} or less"
            )
        return super().schedule(steps, size)

    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        """CLIP one layer before the last, filled with zeros to T5's width; T5's tokens are zeros where it is absent."""
        pipe, first = self.pipe, self._text_encoders()[:2]
        clips = [
            self._read(prompts, tokenizer, encoder, output_hidden_states=True)
            for tokenizer, encoder in zip((pipe.tokenizer, pipe.tokenizer_2), first, strict=True)
        ]
        clip = torch.cat([output.hidden_states[-2].float() for output in clips], dim=-1)
        pooled = torch.cat([output[0].float() for output in clips], dim=-1)
        if pipe.text_encoder_3 is None:
            t5 = clip.new_zeros(len(prompts), T5_TOKENS, self.text_width)
        else:
            t5 = self._read(prompts, pipe.tokenizer_3, pipe.text_encoder_3)[0].float()
        clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return Conditioning(torch.cat([clip, t5], dim=1), {"pooled": pooled})

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The velocity (B, C, h, w)."""
        return self.denoiser(
            hidden_states=z,
            encoder_hidden_states=text.sequence,
            pooled_projections=text.extras["pooled"],
            timestep=self._time(z, t),
            return_dict=False,
        )[0]
