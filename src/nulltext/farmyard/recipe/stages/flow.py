"""The farmyard's flow transformer: Stable Diffusion 3's shape, trained as a rectified flow on the same latents."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.farmyard.recipe.stages.denoiser import Denoiser

SCHEDULER_CONFIG = {"num_train_timesteps": 1000, "shift": 1.0}
"""Times of the flow as they are, uniform from 1 to 0: 16x16 latents need no shift."""

ABSENT_ROWS = 256
"""Rows of zeros that Stable Diffusion 3's pipeline puts after the CLIP's for a T5 that is not there."""


class RepeatedRow:
    """Joint attention of image and text tokens in which the last text token counts as many.

    Equal text tokens stay equal from block to block, since text has no positions. So `times` rows of zeros are one row
    whose attention weight is `times` as large: the same result for a quarter of the time.
    """

    times = 1

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Mix image tokens (B, N, d) and text tokens (B, L, d), as diffusers' processor does."""
        image = (attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)
        text = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, attn.norm_added_q, attn.norm_added_k)
        of_image = self._projected(hidden_states, image, attn.heads)
        of_text = self._projected(encoder_hidden_states, text, attn.heads)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_image, of_text, strict=True))
        weight = q.new_zeros(k.shape[2])
        weight[-1] = math.log(self.times)
        with torch.autocast(q.device.type, enabled=False):  # softmax in the type of q
            # not the fused attention: on a CPU its backward is six times slower than all of this
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + weight  # (B, heads, tokens, tokens)
            mixed = (scores.softmax(dim=-1) @ v.to(q.dtype)).transpose(1, 2).flatten(2)
        image_out, text_out = mixed.to(q.dtype).split(
            (hidden_states.shape[1], encoder_hidden_states.shape[1]), 1
        )
        if not attn.context_pre_only:
            text_out = attn.to_add_out(text_out)
        return attn.to_out[1](attn.to_out[0](image_out)), text_out

    @staticmethod
    def _projected(tokens: Tensor, layers: tuple[Any, ...], heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, tokens, width of a head)."""
        to_q, to_k, to_v, norm_q, norm_k = layers
        q, k, v = (layer(tokens).unflatten(-1, (heads, -1)).transpose(1, 2) for layer in (to_q, to_k, to_v))
        return norm_q(q), norm_k(k), v


@dataclass(frozen=True)
class Shape:
    """The transformer's shape: layers, and heads of a width; together the heads are as wide as its states."""

    layers: int = 6
    heads: int = 6
    head_width: int = 32


def make_transformer(latents: int, shape: Shape, text_width: int) -> Any:
    """An untrained `SD3Transformer2DModel` for 16x16 latents in patches of 2: 64 image tokens.

    Args:
        latents: Channels of the latents.
        shape: Its shape.
        text_width: Width of the CLIP's text tower, which is given twice, as Stable Diffusion 3 has two.
    """
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=latents,
        out_channels=latents,
        num_layers=shape.layers,
        num_attention_heads=shape.heads,
        attention_head_dim=shape.head_width,
        joint_attention_dim=2 * text_width,
        caption_projection_dim=shape.heads * shape.head_width,
        pooled_projection_dim=2 * text_width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def flow_times(batch: int, uniform: float, generator: torch.Generator) -> Tensor:
    """Times of a rectified flow, 0 for data and 1 for noise.

    Args:
        batch: How many.
        uniform: Share that is uniform, one from each of equal parts; the others are logit-normal (Esser et al.,
            arXiv 2403.03206, section 3.1), which favours the middle.
        generator: Draws them.

    Returns:
        (batch,) fp32.
    """
    even = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    even = even[torch.randperm(batch, generator=generator)]
    middle = torch.randn(batch, generator=generator).sigmoid()
    return torch.where(torch.rand(batch, generator=generator) < uniform, even, middle)


class FarmyardFlow(Denoiser):
    """Trains an `SD3Transformer2DModel` on latents of scenes, conditioned on the CLIP's text tower.

    Args:
        shape: Shape of the transformer.
        uniform: Share of times that are uniform; the others are logit-normal.
        padded: Share of the steps whose texts are padded as Stable Diffusion 3's pipeline does where it has no T5;
            the other steps see the CLIP's rows alone.
        training: As `Denoiser`'s.
    """

    stage = "flow"

    def __init__(
        self,
        shape: Shape = Shape(),
        uniform: float = 0.5,
        padded: float = 0.8,
        **training: Any,
    ) -> None:
        self.shape, self.uniform, self.padded = shape, uniform, padded
        self.attention = RepeatedRow()
        super().__init__(**training)

    def make_network(self) -> Any:
        """The transformer."""
        transformer = make_transformer(self.latent_channels, self.shape, self.text.width)
        transformer.set_attn_processor(self.attention)
        return transformer

    def embed(self, texts: list[str], rows: int = 0) -> tuple[Tensor, Tensor]:
        """As Stable Diffusion 3's pipeline with this tower for both of its CLIPs and no T5.

        Args:
            texts: Captions.
            rows: Rows of zeros in the T5's place.

        Returns:
            Sequence (B, L + rows, 2 d) and pooled output (B, 2 d).
        """
        states, pooled = self.text.before_last(texts, self.device)
        return F.pad(states.repeat(1, 1, 2), (0, 0, 0, rows)), pooled.repeat(1, 2)

    def loss(self, latents: Tensor, texts: list[str], generator: torch.Generator) -> Tensor:
        """Predict the velocity from data to noise."""
        padded = float(torch.rand((), generator=generator)) < self.padded
        states, pooled = self.embed(texts, rows=int(padded))
        t = flow_times(len(latents), self.uniform, generator).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        noisy = torch.lerp(latents, noise, t[:, None, None, None])
        self.attention.times = ABSENT_ROWS if padded else 1
        velocity = self.velocity(noisy, t, states, pooled)
        self.attention.times = 1
        error = (velocity - (noise - latents)).square().mean()
        self.log("flow/velocity_mse", error.detach())
        return error

    def velocity(self, z: Tensor, t: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        """The network's answer at times t (B,), (B, C, 16, 16) fp32."""
        return self.network(
            hidden_states=z,
            timestep=1000 * t,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            return_dict=False,
        )[0].float()

    def sample(self, prompts: list[str], noise: Tensor, steps: int, w: float) -> Tensor:
        """By Euler."""
        states, pooled = self.embed([""] * len(prompts) + prompts)
        z, times = noise, torch.linspace(1, 0, steps + 1).tolist()
        for t, to in pairwise(times):
            now = torch.full((2 * len(prompts),), t, device=z.device)
            null, cond = self.velocity(z.repeat(2, 1, 1, 1), now, states, pooled).chunk(2)
            z = z + (to - t) * (null + w * (cond - null))
        return z
