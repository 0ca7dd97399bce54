"""The algorithm as its authors' notebook runs it, written plainly, to be measured against.

What is slow in the original is slow here: fp32, the network's weights not frozen (their gradients are computed at every
inner step and pile up unused), the conditional prediction computed again in the guided step, one picture at a time.
Its small departures from the printed algorithm are here, too: an inversion step tells the network the timestep that it
reaches, the learning rate falls by a hundredth each timestep, the threshold of the inner loop rises, and the loop ends
after the step whose loss was below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Adam

STEPS = 50
INNER_STEPS = 10
GUIDANCE_SCALE = 7.5
LEARNING_RATE = 1e-2
EPSILON = 1e-5


@dataclass
class Reference:
    """One UNet, one prompt. It predicts noise (eps), as Stable Diffusion 1.x does.

    Args:
        unet: A diffusers UNet as ``from_pretrained`` leaves it: in eval mode, its weights requiring gradients.
        scheduler: A ``DDIMScheduler`` with its timesteps set.
        null: The empty prompt's embedding (1, L, d).
        cond: The source prompt's embedding (1, L, d).
        added: What an SDXL UNet is told besides: ``text_embeds``, ``time_ids``.
    """

    unet: Any
    scheduler: Any
    null: Tensor
    cond: Tensor
    added: dict[str, Tensor] | None = None
    forwards: int = 0
    backwards: int = 0

    def noise(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The UNet's prediction (B, 4, h, w)."""
        self.forwards += len(z)
        added = self.added and {name: x.expand(len(z), -1) for name, x in self.added.items()}
        return self.unet(z, t, encoder_hidden_states=text, added_cond_kwargs=added)["sample"]

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_bar at a timestep and at the one before it in the schedule, closer to the picture."""
        previous = t - self.scheduler.config.num_train_timesteps // self.scheduler.num_inference_steps
        alphas = self.scheduler.alphas_cumprod
        return alphas[t], alphas[previous] if previous >= 0 else self.scheduler.final_alpha_cumprod

    def towards_picture(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """One sampling step."""
        here, there = self.levels(t)
        clean = (z - (1 - here) ** 0.5 * eps) / here**0.5
        return there**0.5 * clean + (1 - there) ** 0.5 * eps

    def towards_noise(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """One inverting step, to timestep t from the one before it."""
        there, here = self.levels(t)
        clean = (z - (1 - here) ** 0.5 * eps) / here**0.5
        return there**0.5 * clean + (1 - there) ** 0.5 * eps

    @torch.no_grad()
    def ddim_inversion(self, z_0: Tensor) -> list[Tensor]:
        """The pivot at guidance 1: T + 1 latents, the picture's first."""
        latents = [z_0]
        for t in reversed(self.scheduler.timesteps):
            latents.append(self.towards_noise(latents[-1], self.noise(latents[-1], t, self.cond), t))
        return latents

    def null_optimisation(
        self, latents: list[Tensor], inner_steps: int = INNER_STEPS, epsilon: float = EPSILON
    ) -> tuple[list[Tensor], Tensor]:
        """Algorithm 1 on a pivot: the T null embeddings (1, L, d), and the latents z_0 that they lead to."""
        z, null, learned = latents[-1], self.null, []
        for i, t in enumerate(self.scheduler.timesteps):
            null = null.clone().detach().requires_grad_(True)
            optimiser = Adam([null], lr=LEARNING_RATE * (1.0 - i / 100.0))
            target = latents[len(latents) - i - 2]
            with torch.no_grad():
                eps_cond = self.noise(z, t, self.cond)
            for _ in range(inner_steps):
                eps_null = self.noise(z, t, null)
                eps = eps_null + GUIDANCE_SCALE * (eps_cond - eps_null)
                loss = mse_loss(self.towards_picture(z, eps, t), target)
                optimiser.zero_grad()
                loss.backward()
                self.backwards += 1
                optimiser.step()
                if loss.item() < epsilon + i * 2e-5:
                    break
            learned.append(null.detach())
            with torch.no_grad():
                z = self.guided_step(z, t, null)
        return learned, z

    def guided_step(self, z: Tensor, t: Tensor, null: Tensor) -> Tensor:
        """One sampling step, both halves of the guidance in one batch."""
        both = self.noise(torch.cat([z, z]), t, torch.cat([null, self.cond]))
        eps_null, eps_cond = both.chunk(2)
        return self.towards_picture(z, eps_null + GUIDANCE_SCALE * (eps_cond - eps_null), t)


def ddim_scheduler(config: dict[str, Any], steps: int = STEPS) -> Any:
    """The scheduler that the notebook makes, for a model's own noise levels."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(
        {**config, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    )
    scheduler.set_timesteps(steps)
    return scheduler
