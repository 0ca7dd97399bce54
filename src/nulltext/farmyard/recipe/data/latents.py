"""Pictures as the latents of a trained autoencoder."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from nulltext.errors import UserError
from nulltext.farmyard.recipe.data.pixels import to_pixels
from nulltext.farmyard.recipe.precision import has_fast_bf16
from nulltext.files import write_atomically


@torch.no_grad()
def encode_all(vae: Any, pictures: NDArray[np.uint8], batch_size: int = 64) -> Tensor:
    """Means of the posterior, not yet scaled.

    Args:
        vae: An `AutoencoderKL`.
        pictures: (n, H, W, 3) uint8.
        batch_size: Pictures at a time.

    Returns:
        (n, channels, h, w) fp32.
    """
    means = []
    for start in range(0, len(pictures), batch_size):
        pixels = to_pixels(pictures[start : start + batch_size]).to(vae.device)
        with torch.autocast(vae.device.type, torch.bfloat16, enabled=has_fast_bf16()):
            means.append(vae.encode(pixels).latent_dist.mean.float().cpu())
    return torch.cat(means)


def encoded(vae_folder: Path, pictures: NDArray[np.uint8], cache: Path) -> Tensor:
    """Scaled latents of all training pictures, from the cache where it was made with this very autoencoder.

    Args:
        vae_folder: A diffusers `AutoencoderKL` folder.
        pictures: (n, H, W, 3) uint8.
        cache: Folder that keeps the latents.

    Returns:
        (n, channels, h, w) fp32.
    """
    from diffusers import AutoencoderKL

    weights = vae_folder / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise UserError(
            f"there is no vae in {vae_folder.parent}; train it first: the vae.yaml beside this config"
        )
    key = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    path = cache / f"latents_{len(pictures)}_{key}.safetensors"
    if not path.is_file():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        vae = AutoencoderKL.from_pretrained(vae_folder).eval().to(device)
        latents = encode_all(vae, pictures) * vae.config.scaling_factor
        write_atomically(path, lambda temporary: save_file({"latents": latents}, temporary))
    return load_file(path)["latents"]
