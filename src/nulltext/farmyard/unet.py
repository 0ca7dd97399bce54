"""The farmyard's UNet: predicts the noise in 16x16 latents under a caption, as Stable Diffusion's does."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from nulltext.ddim import Schedule, ddim_step, guide
from nulltext.errors import UserError
from nulltext.farmyard.scene import ANIMALS, PLACES, Scene, caption
from nulltext.farmyard.training import MovingAverage, adamw_and_schedule, generator_of_step, show_grid

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


def make_unet(channels: tuple[int, ...], heads: tuple[int, ...], text_width: int) -> Any:
    """An untrained `UNet2DConditionModel` for 16x16x4 latents with cross-attention at every level: 16, 8 and 4."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
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


class FarmyardUNet(L.LightningModule):
    """Trains a `UNet2DConditionModel` on latents of scenes, conditioned on the CLIP's text tower.

    Args:
        work: Where everything is kept; reads its `vae` and `clip`, writes the finished UNet to its `unet`.
        channels: Channels of the levels.
        heads: Attention heads of the levels.
        lr: Learning rate at its highest.
        steps: Optimiser steps of the whole training.
        warm_up: Optimiser steps of linear warm-up.
        flat: Share of the training before the learning rate falls.
        ema_decay: Decay of the moving average of the weights, which is what is kept.
        empty_captions: Share of captions replaced by the empty one, for classifier-free guidance.
        short_captions: Share of captions that leave something out.
        gamma: Gamma of the min-SNR weighting.
        preview_every: Epochs between sample grids in TensorBoard.
        seed: Seed of timesteps, noise and the choice of captions.
    """

    def __init__(
        self,
        work: Path = Path("lightning_logs/farmyard"),
        channels: tuple[int, int, int] = (64, 128, 160),
        heads: tuple[int, int, int] = (2, 4, 5),
        lr: float = 8e-4,
        steps: int = 3300,
        warm_up: int = 100,
        flat: float = 0.4,
        ema_decay: float = 0.998,
        empty_captions: float = 0.1,
        short_captions: float = 0.4,
        gamma: float = 5.0,
        preview_every: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from diffusers import DDIMScheduler
        from diffusers.models.attention_processor import AttnProcessor

        self.work, self.seed, self.gamma, self.preview_every = work, seed, gamma, preview_every
        self.lr, self.steps, self.warm_up, self.flat = lr, steps, warm_up, flat
        self.empty_captions, self.short_captions = empty_captions, short_captions
        self.frozen = load_frozen(work)
        self.unet = make_unet(channels, heads, self.frozen["text"].config.hidden_size)
        self.unet.set_attn_processor(
            AttnProcessor()
        )  # on 16x16 maps the fused one's backward is slower on a CPU
        self.average = MovingAverage(self.unet, ema_decay)
        self.alpha_bar: Tensor
        self.register_buffer("alpha_bar", DDIMScheduler(**SCHEDULER_CONFIG).alphas_cumprod, persistent=False)

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Texts to (B, L, d), by the frozen text tower."""
        tokens = self.frozen["tokenizer"](texts, padding="max_length", truncation=True, return_tensors="pt")
        return (
            self.frozen["text"]
            .to(self.device)(input_ids=tokens.input_ids.to(self.device))
            .last_hidden_state.float()
        )

    def choose_captions(self, phrasings: list[list[str]], generator: torch.Generator) -> list[str]:
        """The full caption, one that leaves something out, or the empty one, for each picture."""
        kind = torch.rand(len(phrasings), generator=generator).tolist()
        variants = torch.randint(1, len(phrasings[0]), (len(phrasings),), generator=generator).tolist()
        chosen = []
        for share, variant, texts in zip(kind, variants, phrasings, strict=True):
            short = share < self.empty_captions + self.short_captions
            chosen.append("" if share < self.empty_captions else texts[variant] if short else texts[0])
        return chosen

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Predict the noise that was added."""
        generator = generator_of_step(self.seed, self.global_step)
        latents = batch["latents"]  # (B, 4, 16, 16)
        text = self.embed(self.choose_captions(batch["captions"], generator))
        t = stratified_timesteps(len(latents), len(self.alpha_bar), generator).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        a = self.alpha_bar[t]
        noisy = a.sqrt()[:, None, None, None] * latents + (1 - a).sqrt()[:, None, None, None] * noise
        eps = self.unet(noisy, t, text, return_dict=False)[0].float()
        error = (eps - noise).square().mean(dim=(1, 2, 3))  # (B,)
        self.log("unet/eps_mse", error.detach().mean())
        return (min_snr_weight(a, self.gamma) * error).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        """Follow the weights with their average."""
        self.average.update(self.unet)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Show what the averaged UNet draws now."""
        if (self.current_epoch + 1) % self.preview_every:
            return
        trained = {name: p.detach().clone() for name, p in self.unet.named_parameters()}
        self.average.copy_to(self.unet)
        scenes = [
            Scene(animal=a, place=PLACES[i % 5], hat="red hat" if i % 2 else None)
            for i, a in enumerate(ANIMALS)
        ]
        noise = torch.randn(len(scenes), 4, 16, 16, generator=torch.Generator().manual_seed(self.seed))
        pictures = self.sample([caption(s) for s in scenes], noise.to(self.device), steps=20, w=5.0)
        show_grid(self, "unet/samples", pictures, columns=len(scenes))
        self.unet.load_state_dict(trained)

    def sample(self, prompts: list[str], z: Tensor, steps: int, w: float) -> Tensor:
        """Pictures (B, 3, 64, 64) that the UNet draws from noise (B, 4, 16, 16) under guidance w."""
        schedule = Schedule.from_config(SCHEDULER_CONFIG, steps)
        text = torch.cat([self.embed([""] * len(prompts)), self.embed(prompts)])
        for t, a_from, a_to in zip(schedule.timesteps, schedule.alpha_from, schedule.alpha_to, strict=True):
            eps_null, eps_cond = (
                self.unet(z.repeat(2, 1, 1, 1), t, text, return_dict=False)[0].float().chunk(2)
            )
            z = ddim_step(z, guide(eps_null, eps_cond, w), a_from, a_to)
        vae = self.frozen["vae"].to(self.device)
        return vae.decode(z / vae.config.scaling_factor).sample.float()

    def configure_optimizers(self) -> Any:
        """AdamW with a little decay."""
        return adamw_and_schedule(self.unet.parameters(), self.lr, self.steps, self.warm_up, self.flat, 0.01)

    def on_fit_end(self) -> None:
        """Write the averaged UNet once it is trained to the end."""
        if self.global_step >= self.steps:
            self.average.copy_to(self.unet)
            self.unet.save_pretrained(self.work / "unet")


def load_frozen(work: Path) -> dict[str, Any]:
    """The trained autoencoder, text tower and tokenizer, in a dict so that they enter no checkpoint.

    Raises:
        UserError: One of them has not been trained yet.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    for stage in ("vae", "clip"):
        if not (work / stage / "config.json").is_file():
            raise UserError(
                f"there is no {stage} in {work}; train it first: --config configs/farmyard/{stage}.yaml"
            )
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list the vision tower's weights as unexpected
    text = CLIPTextModel.from_pretrained(work / "clip").eval().requires_grad_(False)
    logging.set_verbosity(before)
    return {
        "vae": AutoencoderKL.from_pretrained(work / "vae").eval().requires_grad_(False),
        "text": text,
        "tokenizer": CLIPTokenizer.from_pretrained(work / "clip"),
    }
