"""What flow transformers have in common: the levels of their scheduler, learned text, patches, joint attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.errors import UserError
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning, Learned
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import refuse

EULER = ("FlowMatchEulerDiscreteScheduler",)
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")


class FlowTransformer(DiffusionModel):
    """A rectified flow with true guidance, drawn by a transformer over patches of 2 x 2 latents."""

    kind = "flow"
    denoiser_part = "transformer"
    even_steps: ClassVar[bool] = True  # sigmas fall evenly from 1 to 1 / T before they are shifted
    packed: ClassVar[int] = 4  # the network's channels for each of the latents'

    def __init__(self, pipe: Any, folder: ModelFolder, variant: str | None = None) -> None:
        super().__init__(pipe, folder, variant)
        config = self.denoiser.config
        width: int = config.joint_attention_dim
        self.default_size = 128 * self.vae_scale_factor
        self.size_multiple = 2 * self.vae_scale_factor
        self.network_width = config.num_attention_heads * config.attention_head_dim
        self.encoders: tuple[int, ...] = (self.max_length,)  # the tokens of each text encoder
        self.pooled: int = getattr(config, "pooled_projection_dim", None) or 0
        self.text_width = width

    @property
    def learned(self) -> Learned:
        """All tokens, with the pooled embedding, which enters each layer and moves the whole picture."""
        return Learned(self.encoders, self.pooled)

    @property
    def embedding_shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(rows, d) of what is learned of one null text."""
        return self.learned.rows(self.text_width), self.text_width

    @classmethod
    def check(cls, folder: ModelFolder) -> None:
        """Checks that the transformer takes the VAE's latents and the text encoders' width."""
        super().check(folder)
        network, channels = folder.config(cls.denoiser_part), folder.config("vae").get("latent_channels", 4)
        if network.get("in_channels") != cls.packed * channels:
            raise refuse(folder, "takes more than the latents; take its plain text-to-image sibling")
        for part in cls.text_parts:
            width = folder.config(part).get("d_model")
            if width not in (None, network.get("joint_attention_dim")):
                raise refuse(
                    folder,
                    f"has a transformer that attends to text of width {network.get('joint_attention_dim')}, but its "
                    f"{part} gives {width}; its parts are of different models",
                )

    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """The levels of the model's own scheduler; where its shift is dynamic it follows from the picture's size.

        Raises:
            UserError: T is out of range, or the scheduler's levels do not fall to 0.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler_config)
        config = scheduler.config
        if not 1 <= steps <= config.num_train_timesteps or config.invert_sigmas:
            raise UserError(
                f"steps must be between 1 and {config.num_train_timesteps}, not {steps}; 28 is usual"
            )
        sigmas = (
            torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist() if self.even_steps else None
        )
        height, width = size or (self.default_size, self.default_size)
        patches = (height // self.size_multiple) * (width // self.size_multiple)
        mu = shift_of(dict(config), patches) if config.use_dynamic_shifting else None
        scheduler.set_timesteps(steps, sigmas=sigmas, mu=mu)
        return Schedule.flow(scheduler.sigmas, scheduler.timesteps)

    def _time(self, z: Tensor, t: Tensor | int) -> Tensor:
        return torch.as_tensor(t, dtype=torch.float32, device=z.device).expand(len(z))


def shift_of(config: dict[str, Any], patches: int) -> float:
    """The dynamic shift mu: a line in the number of patches, through the two points that a scheduler's config names."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return patches * slope + (low - slope * few)


class PackedFlow(FlowTransformer):
    """Flows whose network reads a sequence of patches, the text before them: Flux.1 and its kin."""

    def _positions(self, z: Tensor, text: Conditioning) -> dict[str, Tensor]:
        """The positions of text tokens, all at the origin, and of patches: (0, row, column)."""
        rows, columns = z.shape[-2] // 2, z.shape[-1] // 2
        grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        image = F.pad(grid, (1, 0)).to(z)
        return {"txt_ids": image.new_zeros(text.sequence.shape[1], 3), "img_ids": image}

    def _through(self, z: Tensor, t: Tensor | int, text: Conditioning, **inputs: Tensor | None) -> Tensor:
        """The network's output in the shape of z, given as patches of 2 x 2 (B, hw / 4, 4 C)."""
        h, w = z.shape[-2:]
        patches = F.pixel_unshuffle(z, 2).flatten(2).mT  # (B, hw / 4, 4 C)
        output = self.denoiser(
            hidden_states=patches,
            encoder_hidden_states=text.sequence,
            timestep=self._time(z, t) / 1000,
            **self._positions(z, text),
            **inputs,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(output.mT.unflatten(2, (h // 2, w // 2)), 2)
