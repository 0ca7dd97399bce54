"""Models of known architectures with random weights, for what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nulltext.errors import UserError
from nulltext.models import Conditioning
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.models.families.stable_diffusion_3 import StableDiffusion3

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
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd35": {  # medium, at 1024 x 1024; the rest as diffusers has it by default
        "num_layers": 24,
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    }
}
SHAPES = [*UNETS, *TRANSFORMERS]
VAE = {  # of Stable Diffusion 1.x, 2.x and SDXL
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
CLIP_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
CLIPS = ((768, 3072, 12, 12), (1280, 5120, 32, 20))  # the text encoders, the second of SDXL alone


def random_network(shape: str, dtype: torch.dtype, device: str = "cpu") -> Any:
    """A network of a known shape, or of a UNet's diffusers config (its folder), with random weights.

    On the device ``meta`` it has shapes alone.
    """
    from diffusers import SD3Transformer2DModel, UNet2DConditionModel

    if shape not in SHAPES and not Path(shape).exists():
        raise UserError(f"there is no UNet config {shape}; give {', '.join(SHAPES)}, or a unet folder")
    kind = SD3Transformer2DModel if shape in TRANSFORMERS else UNet2DConditionModel
    config = {**UNETS, **TRANSFORMERS}.get(shape) or kind.load_config(shape)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return kind.from_config(config).eval()
    finally:
        torch.set_default_dtype(default)


class Shape(StableDiffusion):
    """A model that is a network alone, or a UNet's whole but for its tokenizers: enough to measure what it costs.

    The VAE and the text encoders compute in fp32, as everywhere in this program.
    """

    def __init__(self, network: Any, device: str, *, whole: bool = False, tiling: bool = False) -> None:
        self.denoiser, config = network.to(device), network.config
        self.kind, self.scheduler_config = "epsilon", {}
        self.forwards = self.backwards = 0
        self.offload = False
        self.is_flow = "joint_attention_dim" in config
        self.is_xl = not self.is_flow and config.addition_embed_type == "text_time"
        self.encoders: list[nn.Module] = []
        if whole:
            from diffusers import AutoencoderKL
            from transformers import CLIPTextConfig, CLIPTextModel

            for clip in CLIPS[: 1 + self.is_xl]:
                encoder = CLIPTextModel(CLIPTextConfig(**dict(zip(CLIP_FIELDS, clip, strict=True))))
                self.encoders.append(encoder.requires_grad_(False).eval().to(device))
            side = 8 * config.sample_size
            self.vae = AutoencoderKL(**VAE, sample_size=side).requires_grad_(False).eval().to(device)
            if tiling:
                self.vae.enable_tiling()

    def embed(self, prompts: str | Sequence[str], size: tuple[int, int] | None = None) -> Conditioning:
        """A random conditioning of the shape that the network reads; text encoders run for nothing."""
        for encoder in self.encoders:
            with torch.no_grad():
                encoder(torch.ones(1, 77, dtype=torch.int64, device=self.device))
        config = self.denoiser.config
        random = partial(torch.randn, device=self.device)
        if self.is_flow:  # 77 tokens of the CLIPs, 256 of T5
            extras = {"pooled": random(1, config.pooled_projection_dim)}
            return Conditioning(random(1, 77 + 256, config.joint_attention_dim), extras)
        sequence = random(1, 77, config.cross_attention_dim)
        if not self.is_xl:
            return Conditioning(sequence)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * config.sample_size
        ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self.device)
        return Conditioning(sequence, {"pooled": random(1, pooled), "time_ids": ids})

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The UNet's output or the transformer's velocity."""
        return (StableDiffusion3 if self.is_flow else StableDiffusion).network(self, z, t, text)  # type: ignore[arg-type]

    _time = StableDiffusion3._time

    def _added(self, text: Conditioning) -> Any:
        return text.extras and {"text_embeds": text.extras["pooled"], "time_ids": text.extras["time_ids"]}
