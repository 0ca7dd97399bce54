"""A farmyard model under measurement: its pipeline, run by hand, and the CLIP that judges it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.errors import UserError
from nulltext.farmyard.recipe.stages.frozen import quiet
from nulltext.farmyard.world import World, world_of
from nulltext.models.device import find_device
from nulltext.models.shipped import NAMES, check_shipped, evaluator, shipped_folder

Text = tuple[Tensor, ...]
"""What a network takes of prompts: states (B, L, d), and a flow's pooled output (B, d)."""


@dataclass(frozen=True)
class Step:
    """One step of sampling: from (alpha, sigma), where the network is told t, to (alpha_next, sigma_next)."""

    t: float
    alpha: float
    sigma: float
    alpha_next: float
    sigma_next: float

    def turned(self) -> "Step":
        """The step of inversion: the other way, with the same t."""
        return Step(self.t, self.alpha_next, self.sigma_next, self.alpha, self.sigma)


class Subject:
    """The model under measurement.

    Args:
        pretrained: farmyard, farmyard-flow, or a folder that `export` has written.
        clip: Folder of the CLIP that judges; by default the model's own.
        device: Where both compute; pictures and embeddings of pictures come back to the CPU.

    Raises:
        UserError: There is no such model or no such device, or the model has no CLIP of its own and none is given.
    """

    def __init__(self, pretrained: str, clip: Path | None = None, device: str = "cpu") -> None:
        self.device = find_device(device)
        self.folder = shipped_folder(pretrained) if pretrained in NAMES else Path(pretrained)
        if not (self.folder / "model_index.json").is_file():
            raise UserError(
                f"there is no model in {self.folder}; give farmyard, farmyard-flow, or a folder written by train"
            )
        check_shipped(self.folder)
        clip = clip or evaluator(self.folder)
        if not (clip / "config.json").is_file():
            raise UserError(f"there is no CLIP in {clip}; give one with --clip, such as the UNet's folder's")
        index = json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))
        self.is_flow = index["_class_name"] == "StableDiffusion3Pipeline"
        with quiet():
            self.pipe = self._load_pipeline().to(self.device)
        self.network: Any = self.pipe.transformer if self.is_flow else self.pipe.unet
        self.world: World = world_of(self.pipe.vae.config.sample_size)
        self.judge = Judge(clip, self.pipe.tokenizer, self.device)

    def _load_pipeline(self) -> Any:
        from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline

        if self.is_flow:
            return StableDiffusion3Pipeline.from_pretrained(
                self.folder, text_encoder_3=None, tokenizer_3=None
            )
        return StableDiffusionPipeline.from_pretrained(
            self.folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels and sides of the latents."""
        return self.network.config.in_channels, 16, 16

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to scaled latents."""
        mean = self.pipe.vae.encode(pixels.to(self.device)).latent_dist.mean
        return mean * self.pipe.vae.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents to (B, 3, H, W) in [-1, 1]."""
        return self.pipe.vae.decode(z / self.pipe.vae.config.scaling_factor).sample.clamp(-1, 1).cpu()

    def embed(self, prompts: Sequence[str]) -> Text:
        """As the pipeline itself does."""
        texts = list(prompts)
        if not self.is_flow:
            return (self.pipe.encode_prompt(texts, self.device, 1, False)[0],)
        states, _, pooled, _ = self.pipe.encode_prompt(texts, texts, texts, do_classifier_free_guidance=False)
        return states, pooled

    def steps(self, number: int) -> list[Step]:
        """The steps of sampling, the noisiest first."""
        scheduler = self.pipe.scheduler
        scheduler.set_timesteps(number)
        times = [float(t) for t in scheduler.timesteps]
        if self.is_flow:
            sigmas = [float(s) for s in scheduler.sigmas]
            return [Step(t, 1 - a, a, 1 - b, b) for t, a, b in zip(times, sigmas, sigmas[1:], strict=False)]
        bars = [float(scheduler.alphas_cumprod[int(t)]) for t in times] + [
            float(scheduler.final_alpha_cumprod)
        ]
        levels = [(bar**0.5, (1 - bar) ** 0.5) for bar in bars]
        return [Step(t, *a, *b) for t, a, b in zip(times, levels, levels[1:], strict=False)]

    def run(self, z: Tensor, step: Step, texts: Sequence[Text], w: float = 1.0) -> Tensor:
        """One step of DDIM or Euler: alpha' z_0 + sigma' eps.

        Args:
            z: (B, C, 16, 16) at the step's start.
            step: Where from and where to; turned, a step of inversion.
            texts: The prompts' embedding, or the empty prompt's and the prompts'.
            w: Guidance scale between the two.
        """
        text = tuple(torch.cat(parts) for parts in zip(*texts, strict=True))
        output = self.ask(z.repeat(len(texts), 1, 1, 1), step.t, text)
        if len(texts) == 2:
            null, cond = output.chunk(2)
            output = null + w * (cond - null)
        if self.is_flow:
            z_0, eps = z - step.sigma * output, z + step.alpha * output
        else:
            z_0, eps = (z - step.sigma * output) / step.alpha, output
        return step.alpha_next * z_0 + step.sigma_next * eps

    def ask(self, z: Tensor, t: float, text: Text) -> Tensor:
        """The network's raw output."""
        if not self.is_flow:
            return self.network(z, t, text[0], return_dict=False)[0]
        times = torch.full((len(z),), t, device=self.device)
        return self.network(
            z, encoder_hidden_states=text[0], pooled_projections=text[1], timestep=times
        ).sample


class Judge:
    """A farmyard's CLIP.

    Args:
        folder: A `CLIPModel` folder.
        tokenizer: Its tokenizer.
        device: Where it computes; embeddings come back to the CPU.
    """

    def __init__(self, folder: Path, tokenizer: Any, device: torch.device) -> None:
        from transformers import CLIPModel

        with quiet():
            self.clip: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        self.tokenizer, self.device = tokenizer, device

    @torch.no_grad()
    def image_features(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] to unit embeddings (n, d)."""
        parts = pixels.to(self.device).split(64)
        pooled = [self.clip.vision_model(pixel_values=part).pooler_output for part in parts]
        return F.normalize(self.clip.visual_projection(torch.cat(pooled)), dim=-1).cpu()

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Tensor:
        """Texts to unit embeddings (n, d)."""
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.clip.text_model(input_ids=ids.to(self.device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1).cpu()
