"""The farmyard's UNet: predicts the noise in 16x16 latents under a caption, as Stable Diffusion's does."""

from typing import Any

import torch
from torch import Tensor

from nulltext.farmyard.recipe.stages.denoiser import Denoiser
from nulltext.farmyard.recipe.stages.group_norm import speed_up

SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
"""Stable Diffusion's noise schedule."""


def make_unet(latents: int, channels: tuple[int, ...], heads: tuple[int, ...], text_width: int) -> Any:
    """An untrained `UNet2DConditionModel` for 16x16 latents with cross-attention at every level: 16, 8 and 4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latents,
        out_channels=latents,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        cross_attention_dim=text_width,
        attention_head_dim=tuple(heads),  # diffusers reads the number of heads from this field, as for SD 1.5
        norm_num_groups=16,
    )


def min_snr_weight(alpha_bar: Tensor, gamma: float) -> Tensor:
    """Weight of the noise error at a noise level: min(SNR, gamma) / SNR (Hang et al., arXiv 2303.09556, section 3.4).

    Args:
        alpha_bar: (B,) levels; SNR = alpha_bar / (1 - alpha_bar).
        gamma: SNR above which levels are weighted down.
    """
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / snr


def stratified_timesteps(batch: int, levels: int, generator: torch.Generator) -> Tensor:
    """Timesteps (B,) int64, one from each of B equal parts of 0 to levels - 1, in random order."""
    spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (spread * levels).long().clamp(max=levels - 1)[torch.randperm(batch, generator=generator)]


class FarmyardUNet(Denoiser):
    """Trains a `UNet2DConditionModel` on latents of scenes, conditioned on the CLIP's text tower.

    Args:
        channels: Channels of the levels.
        heads: Attention heads of the levels.
        gamma: Gamma of the min-SNR weighting.
        training: As `Denoiser`'s.
    """

    stage = "unet"

    def __init__(
        self,
        channels: tuple[int, int, int] = (64, 128, 160),
        heads: tuple[int, int, int] = (2, 4, 5),
        gamma: float = 5.0,
        **training: Any,
    ) -> None:
        from diffusers import DDIMScheduler

        self.channels, self.heads, self.gamma = channels, heads, gamma
        super().__init__(**training)
        self.alpha_bar: Tensor
        self.register_buffer("alpha_bar", DDIMScheduler(**SCHEDULER_CONFIG).alphas_cumprod, persistent=False)

    def make_network(self) -> Any:
        """The UNet, with plain attention: on 16x16 maps the fused one's backward is slower on a CPU."""
        from diffusers.models.attention_processor import AttnProcessor

        unet = make_unet(self.latent_channels, self.channels, self.heads, self.text.width)
        unet.set_attn_processor(AttnProcessor())
        speed_up(unet)
        return unet

    def loss(self, latents: Tensor, texts: list[str], generator: torch.Generator) -> Tensor:
        """Predict the noise that was added."""
        text = self.text.last(texts, self.device)
        t = stratified_timesteps(len(latents), len(self.alpha_bar), generator).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        a = self.alpha_bar[t]
        noisy = a.sqrt()[:, None, None, None] * latents + (1 - a).sqrt()[:, None, None, None] * noise
        eps = self.network(noisy, t, text, return_dict=False)[0].float()
        error = (eps - noise).square().mean(dim=(1, 2, 3))  # (B,)
        self.log("unet/eps_mse", error.detach().mean())
        return (min_snr_weight(a, self.gamma) * error).mean()

    def sample(self, prompts: list[str], noise: Tensor, steps: int, w: float) -> Tensor:
        """By DDIM."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(**SCHEDULER_CONFIG)
        scheduler.set_timesteps(steps)
        text = self.text.last([""] * len(prompts) + prompts, self.device)
        z = noise
        for t in scheduler.timesteps:
            null, cond = self.network(z.repeat(2, 1, 1, 1), t, text, return_dict=False)[0].float().chunk(2)
            z = scheduler.step(null + w * (cond - null), t, z).prev_sample
        return z
