"""Models of known architectures with random weights, for what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nulltext.errors import UserError
from nulltext.models import Conditioning
from nulltext.models.families.stable_diffusion import StableDiffusion

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
VAE = {  # of Stable Diffusion 1.x, 2.x and SDXL
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


def random_unet(shape: str, dtype: torch.dtype, device: str = "cpu") -> Any:
    """A UNet of a known shape, or of a diffusers config (its folder), with random weights.

    On the device ``meta`` it has shapes alone.
    """
    from diffusers import UNet2DConditionModel

    if shape not in UNETS and not Path(shape).exists():
        raise UserError(f"there is no UNet config {shape}; give {', '.join(UNETS)}, or a unet folder")
    config = UNETS.get(shape) or UNet2DConditionModel.load_config(shape)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return UNet2DConditionModel.from_config(config).eval()
    finally:
        torch.set_default_dtype(default)


class Shape(StableDiffusion):
    """A model that is a network alone, or whole but for its tokenizers: enough to measure what it costs.

    The VAE and the text encoders compute in fp32, as everywhere in this program.
    """

    def __init__(self, unet: Any, device: str, *, whole: bool = False, tiling: bool = False) -> None:
        self.denoiser = unet.to(device)
        self.kind, self.scheduler_config = "epsilon", {}
        self.forwards = self.backwards = 0
        self.offload = False
        self.is_xl = unet.config.addition_embed_type == "text_time"
        self.encoders = random_text_encoders(self.is_xl, device) if whole else ()
        if whole:
            from diffusers import AutoencoderKL

            side = 8 * unet.config.sample_size
            self.vae = AutoencoderKL(**VAE, sample_size=side).requires_grad_(False).eval().to(device)
            if tiling:
                self.vae.enable_tiling()

    def embed(self, prompts: str | Sequence[str], size: tuple[int, int] | None = None) -> Conditioning:
        """A random conditioning of the shape that the UNet reads; text encoders run for nothing."""
        for encoder in self.encoders:
            with torch.no_grad():
                encoder(torch.ones(1, 77, dtype=torch.int64, device=self.device))
        config = self.denoiser.config
        text = Conditioning(torch.randn(1, 77, config.cross_attention_dim, device=self.device))
        if not self.is_xl:
            return text
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * config.sample_size
        ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self.device)
        extras = {"pooled": torch.randn(1, pooled, device=self.device), "time_ids": ids}
        return Conditioning(text.sequence, extras)

    def _added(self, text: Conditioning) -> Any:
        return text.extras and {"text_embeds": text.extras["pooled"], "time_ids": text.extras["time_ids"]}


def random_text_encoders(is_xl: bool, device: str) -> tuple[nn.Module, ...]:
    """CLIP's text encoder, and for SDXL the larger one beside it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    shapes = (CLIP_L, CLIP_G) if is_xl else (CLIP_L,)
    encoders = (CLIPTextModel(CLIPTextConfig(**shape)) for shape in shapes)
    return tuple(encoder.requires_grad_(False).eval().to(device) for encoder in encoders)
