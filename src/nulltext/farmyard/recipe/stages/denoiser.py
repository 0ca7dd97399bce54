"""What the UNet and the flow transformer share in training: captions, the moving average, previews."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn

from nulltext.farmyard.recipe.data.stage_data import DEFAULT_WORK
from nulltext.farmyard.recipe.stages.frozen import TextTower, load_vae
from nulltext.farmyard.recipe.stages.training import (
    Learning,
    MovingAverage,
    generator_of_step,
    show_grid,
)
from nulltext.farmyard.world.scene import Scene
from nulltext.farmyard.world.worlds import world_of

LEARNING = Learning(steps=3300, flat=0.4, weight_decay=0.01)


@dataclass(frozen=True)
class Captioning:
    """Which captions a network sees.

    Attributes:
        empty: Share of captions replaced by the empty one, for classifier-free guidance.
        other: Share of captions in another phrasing than the full one.
    """

    empty: float = 0.1
    other: float = 0.4


class Denoiser(L.LightningModule, ABC):
    """Trains a network that predicts from noisy latents, conditioned on the CLIP's text tower.

    Args:
        work: Folder of the whole training; reads its `vae` and `clip`, writes the finished network to its `stage`.
        size: Side of the pictures.
        learning: How it learns.
        captioning: Which captions it sees.
        ema_decay: Decay of the moving average of the weights, which is what is exported.
        preview_every: Epochs between sample grids in TensorBoard.
        seed: Seed of timesteps, noise and the choice of captions.
    """

    stage: ClassVar[str]
    """Name of the stage: of its folder and its curves."""

    def __init__(
        self,
        work: Path = DEFAULT_WORK,
        size: int = 128,
        learning: Learning = LEARNING,
        captioning: Captioning = Captioning(),
        ema_decay: float = 0.998,
        preview_every: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.work, self.world, self.seed = work, world_of(size), seed
        self.learning, self.captioning, self.preview_every = learning, captioning, preview_every
        self.frozen = (load_vae(work), TextTower.load(work))  # a tuple, so that they enter no checkpoint
        self.network: nn.Module = self.make_network()
        learning.begin(self.network)
        self.average = MovingAverage(self.network, ema_decay)

    @abstractmethod
    def make_network(self) -> Any:
        """The untrained network, a diffusers model."""

    @abstractmethod
    def loss(self, latents: Tensor, texts: list[str], generator: torch.Generator) -> Tensor:
        """The loss of a batch of latents (B, C, 16, 16) and their captions; the generator draws times and noise."""

    @abstractmethod
    def sample(self, prompts: list[str], noise: Tensor, steps: int, w: float) -> Tensor:
        """Latents (B, C, 16, 16) that the network draws from noise of that shape under guidance w."""

    @property
    def text(self) -> TextTower:
        """The frozen text tower."""
        return self.frozen[1]

    @property
    def latent_channels(self) -> int:
        """Channels of the autoencoder's latents."""
        return int(self.frozen[0].config.latent_channels)

    def choose_captions(self, scenes: list[Scene], generator: torch.Generator) -> list[str]:
        """The full caption, one in another phrasing, or the empty one, for each scene."""
        kind = torch.rand(len(scenes), generator=generator).tolist()
        count = len(self.world.phrasings)
        variants = torch.randint(1, count, (len(scenes),), generator=generator).tolist()
        chosen = []
        for u, variant, scene in zip(kind, variants, scenes, strict=True):
            empty = u < self.captioning.empty
            other = u < self.captioning.empty + self.captioning.other
            chosen.append("" if empty else self.world.caption(scene, variant if other else 0))
        return chosen

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """One batch of latents under captions."""
        generator = generator_of_step(self.seed, self.global_step)
        return self.loss(batch["latents"], self.choose_captions(batch["scene"], generator), generator)

    def on_train_batch_end(self, *_: Any) -> None:
        """Follow the weights with their average."""
        self.average.update(self.network)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Show what the averaged network draws now."""
        if (self.current_epoch + 1) % self.preview_every:
            return
        trained = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.average.copy_to(self.network)
        scenes = [self.world.random_scene(seed) for seed in range(900_100, 900_116)]
        noise = torch.randn(
            len(scenes), self.latent_channels, 16, 16, generator=torch.Generator().manual_seed(self.seed)
        )
        captions = [self.world.caption(scene) for scene in scenes]
        latents = self.sample(captions, noise.to(self.device), steps=20, w=5.0)
        vae = self.frozen[0].to(self.device)
        pictures = vae.decode(latents / vae.config.scaling_factor).sample.float()
        show_grid(self, f"{self.stage}/samples", pictures, columns=8)
        self.network.load_state_dict(trained, strict=False)

    def configure_optimizers(self) -> Any:
        """As `learning` says."""
        return self.learning.optimiser(self.network)

    def on_fit_end(self) -> None:
        """Write the averaged network once it is trained to the end."""
        if self.global_step >= self.learning.steps:
            self.average.copy_to(self.network)
            network: Any = self.network
            network.save_pretrained(self.work / self.stage)
