"""A model family of one's own: a diffusion UNet asked along the path of a rectified flow.

    python main.py fit --model.family examples.flow_of_a_unet.FlowOfAUNet --data.image sheep.jpg
    python examples/flow_of_a_unet.py --pictures 4    # what flow inversion makes of drawings of the farmyard

A point of the flow, (1 - s) z_0 + s eps, is a point of the diffusion times a number, at the timestep of the same
signal-to-noise ratio. The network predicts the noise there; the velocity follows. No flow was trained for this: it
shows the inversion at work on pictures that a model knows, and what a family needs to say of itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.inversion import DDIM, InversionMethod, NegativePrompt, NullText
from nulltext.inversion.invert import run
from nulltext.metrics.pixel import psnr
from nulltext.models import Conditioning, DiffusionModel
from nulltext.models.conditioning import Learned
from nulltext.models.families.stable_diffusion import StableDiffusion
from nulltext.pixels import from_image, to_unit

SHIFT = 3.0  # of the levels, as Stable Diffusion 3


class FlowOfAUNet(StableDiffusion):
    """Stable Diffusion 1.x or 2.x, or the farmyard, as a rectified flow."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        config = self.scheduler_config
        betas = (
            torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000, dtype=torch.float64)
            ** 2
        )
        signal = (1 - betas).cumprod(0)
        self.ratios = (((1 - signal) / signal).sqrt()).float()  # sigma / alpha of each timestep, rising
        self.kind = "flow"

    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """Levels from 1 to 0, shifted towards noise."""
        even = torch.linspace(1, 1 / steps, steps)
        sigmas = SHIFT * even / (1 + (SHIFT - 1) * even)
        return Schedule.flow(torch.cat([sigmas, torch.zeros(1)]), 1000 * sigmas)

    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The velocity (B, C, h, w): eps - z_0."""
        sigma = (torch.as_tensor(t) / 1000).clamp(max=0.999)
        above = int(torch.searchsorted(self.ratios, sigma / (1 - sigma)).clamp(1, 999))
        low, high = self.ratios[above - 1].log(), self.ratios[above].log()
        between = (((sigma / (1 - sigma)).log() - low) / (high - low)).clamp(-10, 1)
        scale = (sigma**2 + (1 - sigma) ** 2).sqrt()
        noise = super().network(z / scale, (above - 1 + between).clamp(min=0), text).float()
        return (noise - z) / (1 - sigma)


def settings() -> Iterator[tuple[str, InversionMethod]]:
    """What is compared, by name."""
    yield "nothing learned", DDIM(steps=10, guidance_scale=5.0, fixed_point_iterations=0)
    yield "nothing learned, refined pivot", DDIM(steps=20, guidance_scale=5.0)
    yield "negative prompt, refined pivot", NegativePrompt(steps=20, guidance_scale=5.0)
    for sigma in (0.99, 0.97, 0.95, 0.9, 0.8):
        yield f"null-text, from sigma {sigma}", NullText(guidance_scale=5.0, start_sigma=sigma)
    for tokens in (32, 16, 8, 4, 1):
        yield f"null-text, {tokens} tokens", NullText(guidance_scale=5.0, tokens=tokens)
    yield "null-text, T = 20", NullText(guidance_scale=5.0, steps=20)
    yield "null-text, w = 7.5", NullText(guidance_scale=7.5)


def print_sizes(steps: int = 28, width: int = 4096) -> None:
    """Prints the size in MB of the null embeddings of T steps, fp32, by the tokens learned of each text encoder."""
    few = (None, 16, 8, 4, 1)
    print("| MB | all tokens | " + " | ".join(f"{k} of each encoder" for k in few[1:]) + " |")
    print("|---" * (len(few) + 1) + "|")
    for name, encoders, pooled in (
        ("SD 3, 3.5", (77, 256), 2048),
        ("Flux.1", (512,), 768),
        ("Chroma", (512,), 0),
    ):
        sizes = (4e-6 * steps * width * Learned(encoders, pooled).rows(width, k) for k in few)
        print(f"| {name} | " + " | ".join(f"{size:.1f}" for size in sizes) + " |")


def main() -> None:
    """Prints a table: PSNR in dB to the VAE's picture, mean and worst, and evaluations of the network a picture."""
    from nulltext.farmyard.world import HELD_OUT_SEEDS, caption, draw, random_scene

    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--only", default="", help="only the rows with this in their name")
    parser.add_argument(
        "--sizes", action="store_true", help="the size of what is learned by large flows instead"
    )
    options = parser.parse_args()
    if options.sizes:
        print_sizes()
        return
    count = options.pictures
    model = DiffusionModel.from_pretrained(family=f"{FlowOfAUNet.__module__}.FlowOfAUNet")
    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[:count]]
    z_0 = model.encode(torch.stack([from_image(draw(scene, model.default_size)) for scene in scenes]))
    cond, bound = model.embed([caption(scene) for scene in scenes]), to_unit(model.decode(z_0))
    print("| flow of the farmyard's UNet | PSNR to the VAE, mean (worst) | evaluations |\n|---|---|---|")
    for name, method in settings():
        if options.only not in name:
            continue
        model.forwards = model.backwards = 0
        state = method.begin(model, z_0, cond)
        run(method, model, state)
        found = psnr(to_unit(model.decode(state.z)), bound)
        cost = (model.forwards + model.backwards) / count
        print(f"| {name} | {found.mean():.1f} ({found.min():.1f}) | {cost:.0f} |", flush=True)


if __name__ == "__main__":
    main()
