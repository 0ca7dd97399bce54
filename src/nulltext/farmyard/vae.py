"""The farmyard's autoencoder: an AutoencoderKL that takes 64x64 pixels to 16x16 latents and back."""

import hashlib
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from nulltext.errors import UserError
from nulltext.farmyard.data import to_pixels
from nulltext.farmyard.scene import HELD_OUT_SEEDS
from nulltext.farmyard.training import adamw_and_schedule, generator_of_step, show_grid
from nulltext.files import write_atomically


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
        work: Where everything is kept; the finished autoencoder is written to its `vae`.
        channels: Channels of the levels; each level after the first halves the sides.
        groups: Groups of the group normalisation.
        lr: Learning rate at its highest.
        steps: Optimiser steps of the whole training.
        warm_up: Optimiser steps of linear warm-up.
        flat: Share of the training before the learning rate falls.
        kl_weight: Weight of the KL divergence, averaged over latent values.
        seed: Seed of the posterior's noise.
    """

    def __init__(
        self,
        work: Path = Path("lightning_logs/farmyard"),
        channels: tuple[int, int, int] = (32, 64, 96),
        groups: int = 8,
        lr: float = 1.5e-3,
        steps: int = 2000,
        warm_up: int = 100,
        flat: float = 0.3,
        kl_weight: float = 5e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.folder, self.kl_weight, self.seed = work / "vae", kl_weight, seed
        self.lr, self.steps, self.warm_up, self.flat = lr, steps, warm_up, flat
        self.vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=groups,
            mid_block_add_attention=False,
            sample_size=64,
        )

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Encode, sample the posterior, decode, compare."""
        pixels = to_pixels(batch["picture"])  # (B, 3, 64, 64)
        posterior = self.vae.encode(pixels).latent_dist
        generator = generator_of_step(self.seed, self.global_step)
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents = posterior.mean + posterior.std * noise.to(posterior.mean)  # (B, 4, 16, 16)
        reconstruction = self.vae.decode(latents).sample.float()
        kl = posterior.kl().mean() / latents[0].numel()
        loss = reconstruction_loss(reconstruction, pixels)
        self.log_dict({"vae/loss": loss, "vae/kl": kl, "vae/latent_std": latents.detach().std()})
        return loss + self.kl_weight * kl

    def on_train_epoch_end(self) -> None:
        """Show held-out scenes above their reconstructions, and their PSNR."""
        from nulltext.farmyard.cache import draw_seed

        pictures = torch.stack([torch.tensor(draw_seed(seed)) for seed in HELD_OUT_SEEDS[:32]])
        pixels = to_pixels(pictures).to(self.device)
        reconstruction = self.reconstruct(pixels)
        psnr = peak_signal_noise_ratio(reconstruction, pixels, data_range=(-1.0, 1.0), dim=(1, 2, 3))
        self.log("vae/psnr_held_out", psnr)
        show_grid(self, "vae/held_out", torch.cat([pixels[:8], reconstruction[:8]]), columns=8)

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels through the posterior's mean and back, (B, 3, H, W) in [-1, 1]."""
        return self.vae.decode(self.vae.encode(pixels).latent_dist.mean).sample.float().clamp(-1, 1)

    def configure_optimizers(self) -> Any:
        """AdamW without decay."""
        return adamw_and_schedule(self.vae.parameters(), self.lr, self.steps, self.warm_up, self.flat, 0.0)

    def on_fit_end(self) -> None:
        """Write the autoencoder once it is trained to the end, with the factor that gives latents unit deviation."""
        if self.global_step < self.steps:
            return
        rows = self.trainer.datamodule.rows  # type: ignore[attr-defined]
        deviation = float(encode_all(self.vae, rows.columns["picture"][:1024].numpy()).std())
        self.vae.register_to_config(scaling_factor=round(1 / deviation, 4))
        self.vae.save_pretrained(self.folder)


@torch.no_grad()
def encode_all(vae: Any, pictures: np.ndarray, batch_size: int = 64) -> Tensor:
    """Means of the posterior, not yet scaled.

    Args:
        vae: An `AutoencoderKL`.
        pictures: (n, H, W, 3) uint8.
        batch_size: Pictures at a time.

    Returns:
        (n, 4, h, w) fp32.
    """
    means = []
    for start in range(0, len(pictures), batch_size):
        pixels = to_pixels(torch.from_numpy(np.array(pictures[start : start + batch_size]))).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16):
            means.append(vae.encode(pixels).latent_dist.mean.float().cpu())
    return torch.cat(means)


def encoded(vae_folder: Path, pictures: np.ndarray, cache: Path) -> Tensor:
    """Scaled latents of all training pictures, from the cache where it was made with this very autoencoder.

    Args:
        vae_folder: A diffusers `AutoencoderKL` folder.
        pictures: (n, H, W, 3) uint8.
        cache: Folder that keeps the latents.

    Returns:
        (n, 4, h, w) fp32.
    """
    from diffusers import AutoencoderKL

    weights = vae_folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise UserError(
            f"there is no autoencoder in {vae_folder}; train it first: --config configs/farmyard/vae.yaml"
        )
    key = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    path = cache / f"latents_{len(pictures)}_{key}.safetensors"
    if not path.is_file():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        vae = AutoencoderKL.from_pretrained(vae_folder).eval().to(device)
        latents = encode_all(vae, pictures) * vae.config.scaling_factor
        write_atomically(path, lambda temporary: save_file({"latents": latents}, temporary))
    return load_file(path)["latents"]
