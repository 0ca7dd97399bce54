"""The farmyard's autoencoder: an AutoencoderKL that takes pixels to 16x16 latents and back."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from nulltext.farmyard.recipe.data.cache import held_out_pictures
from nulltext.farmyard.recipe.data.latents import encode_all
from nulltext.farmyard.recipe.data.pixels import to_pixels
from nulltext.farmyard.recipe.data.stage_data import DEFAULT_WORK
from nulltext.farmyard.recipe.stages.group_norm import speed_up
from nulltext.farmyard.recipe.stages.training import Learning, generator_of_step, show_grid

LEARNING = Learning(lr=1.5e-3)
GROUPS = 8
"""Groups of the group normalisation."""
START_LOG_VARIANCE = -6.0
"""Of the posterior of an untrained autoencoder: a deviation of 0.05."""


def gradient_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical differences of two batches of pictures."""
    difference = a - b  # (B, 3, H, W)
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def reconstruction_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """L1 for the edges, MSE for the PSNR, differences of neighbours for eyes and antlers."""
    return (
        F.l1_loss(reconstruction, pixels)
        + 2 * F.mse_loss(reconstruction, pixels)
        + 0.3 * gradient_l1(reconstruction, pixels)
    )


class FarmyardVAE(L.LightningModule):
    """Trains an `AutoencoderKL` on drawn scenes and on pictures like photographs.

    Args:
        work: Folder of the whole training; the finished autoencoder is written to its `vae`.
        size: Side of the pictures.
        channels: Channels of the levels; each level after the first halves the sides.
        latent_channels: Channels of the latents.
        learning: How it learns.
        kl_weight: Weight of the KL divergence, averaged over latent values.
        seed: Seed of the posterior's noise.
    """

    def __init__(
        self,
        work: Path = DEFAULT_WORK,
        size: int = 128,
        channels: tuple[int, ...] = (32, 64, 96),
        latent_channels: int = 4,
        learning: Learning = LEARNING,
        kl_weight: float = 5e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.folder, self.size, self.kl_weight, self.seed = work / "vae", size, kl_weight, seed
        self.learning = learning
        self.vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=1,
            latent_channels=latent_channels,
            shift_factor=0.0,  # Stable Diffusion 3 adds it, and Stable Diffusion knows none
            norm_num_groups=GROUPS,
            mid_block_add_attention=False,
            sample_size=size,
        )
        with (
            torch.no_grad()
        ):  # from a deviation of 1, hundreds of steps go into latents that outgrow the noise
            self.vae.quant_conv.weight[latent_channels:] *= 0.1
            self.vae.quant_conv.bias[latent_channels:] = START_LOG_VARIANCE
        speed_up(self.vae)
        learning.begin(self.vae)

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Encode, sample the posterior, decode, compare."""
        pixels = to_pixels(batch["picture"])  # (B, 3, H, W)
        posterior = self.vae.encode(pixels).latent_dist
        generator = generator_of_step(self.seed, self.global_step)
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise.to(posterior.mean)  # (B, C, 16, 16)
        reconstruction = self.vae.decode(latents).sample.float()
        kl = posterior.kl().mean() / latents[0].numel()
        loss = reconstruction_loss(reconstruction, pixels)
        self.log_dict({"vae/loss": loss, "vae/kl": kl, "vae/latent_std": latents.detach().std()})
        return loss + self.kl_weight * kl

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Show held-out scenes above their reconstructions, and their PSNR."""
        pixels = to_pixels(held_out_pictures(32, self.size)).to(self.device)
        reconstruction = self.reconstruct(pixels)
        psnr = peak_signal_noise_ratio(reconstruction, pixels, data_range=(-1.0, 1.0), dim=(1, 2, 3))
        self.log("vae/psnr_held_out", psnr)
        show_grid(self, "vae/held_out", torch.cat([pixels[:8], reconstruction[:8]]), columns=8)

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels through the posterior's mean and back, (B, 3, H, W) in [-1, 1]."""
        return self.vae.decode(self.vae.encode(pixels).latent_dist.mean).sample.float().clamp(-1, 1)

    def configure_optimizers(self) -> Any:
        """As `learning` says."""
        return self.learning.optimiser(self.vae)

    def on_fit_end(self) -> None:
        """Write the autoencoder once it is trained to the end, with the factor that gives latents unit deviation."""
        if self.global_step < self.learning.steps:
            return
        rows = self.trainer.datamodule.rows  # type: ignore[attr-defined]
        deviation = float(encode_all(self.vae, rows.columns["picture"][range(min(1024, len(rows)))]).std())
        self.vae.register_to_config(scaling_factor=round(1 / deviation, 4))
        self.vae.save_pretrained(self.folder)
