"""What each stage of the farmyard's training sees: pictures, captioned pictures, captioned latents."""

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nulltext.farmyard.recipe.data.cache import cached, draw_scene, photo_like_pictures, scene_pictures
from nulltext.farmyard.recipe.data.contrasts import contrasts
from nulltext.farmyard.recipe.data.latents import encoded
from nulltext.farmyard.recipe.data.order import Mixed, Order, Rows, Stacked
from nulltext.farmyard.world.worlds import world_of

DEFAULT_WORK = Path("lightning_logs/farmyard")


class StageData(L.LightningDataModule, ABC):
    """What the stages have in common: where data lie and how they are dealt out.

    Args:
        work: Folder of the whole training: pictures and latents in its `data`, stages in folders of their names.
        size: Side of the pictures; says which world.
        scenes: Number of training scenes, seeds 0 to scenes - 1.
        batch_size: Pictures in a batch.
        steps_per_epoch: Batches in what Lightning calls an epoch; checkpoints and curves come at its end.
        seed: Seed of the order.
    """

    def __init__(
        self,
        work: Path = DEFAULT_WORK,
        size: int = 128,
        scenes: int = 30000,
        batch_size: int = 32,
        steps_per_epoch: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.work, self.folder, self.scenes, self.seed = work, work / "data", scenes, seed
        self.world = world_of(size)
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.rows: Rows | None = None

    @abstractmethod
    def make_rows(self) -> Rows:
        """Everything that training will see."""

    def batches(self, rows: Rows) -> Sampler[list[int]]:
        """The order in which it sees it."""
        return Order(len(rows), self.batch_size, self.steps_per_epoch, self.seed, self.step)

    def step(self) -> int:
        """The step that comes next."""
        return self.trainer.global_step if self.trainer else 0

    def setup(self, stage: str) -> None:
        """Draw, or read what was drawn before."""
        self.rows = self.rows or self.make_rows()

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches by column."""
        assert self.rows is not None
        return DataLoader(self.rows, batch_sampler=self.batches(self.rows), collate_fn=lambda batch: batch)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Tensors go to the device; Lightning itself would look into every scene, too."""
        return {
            name: column.to(device) if isinstance(column, Tensor) else column
            for name, column in batch.items()
        }


class PictureData(StageData):
    """Scenes and photo-like pictures, for the VAE.

    Args:
        photo_like: Number of synthetic pictures with the statistics of photographs, mixed among them.
        stage: As `StageData`'s.
    """

    def __init__(self, photo_like: int = 7000, **stage: Any) -> None:
        super().__init__(**stage)
        self.photo_like = photo_like

    def make_rows(self) -> Rows:
        """Column `picture`, (n, size, size, 3) uint8."""
        parts = [scene_pictures(self.folder, self.scenes, self.world.size)]
        if self.photo_like:
            parts.append(photo_like_pictures(self.folder, self.photo_like, self.world.size))
        return Rows(picture=Stacked(*parts))


class CaptionedPictureData(StageData):
    """Scenes, for the CLIP.

    Args:
        contrasts: Number of sets of scenes that differ in one thing alone; 0 for none.
        differing: Which things these are, in turn.
        alike: Share of a batch that comes from these sets.
        stage: As `StageData`'s.
    """

    def __init__(
        self,
        contrasts: int = 3000,
        differing: tuple[str, ...] = ("animal", "hat"),
        alike: float = 0.5,
        **stage: Any,
    ) -> None:
        super().__init__(**stage)
        self.contrasts, self.differing, self.alike = contrasts, differing, alike if contrasts else 0.0
        self.groups: list[range] = []

    def make_rows(self) -> Rows:
        """Columns `picture`, (n, size, size, 3) uint8, and `scene`: the scenes, then the sets."""
        size = self.world.size
        pictures = [scene_pictures(self.folder, self.scenes, size)]
        scenes = [self.world.random_scene(seed) for seed in range(self.scenes)]
        if self.contrasts:
            alike, groups = contrasts(self.world, self.contrasts, self.differing)
            name = f"contrasts_{size}_{self.contrasts}_{'_'.join(self.differing)}.npy"
            draw = partial(draw_scene, size=size)
            pictures.append(cached(self.folder / name, draw, alike))
            scenes += alike
            self.groups = [range(g.start + self.scenes, g.stop + self.scenes) for g in groups]
        return Rows(picture=Stacked(*pictures), scene=scenes)

    def batches(self, rows: Rows) -> Sampler[list[int]]:
        """Part sets, part scenes at random."""
        dealing = (self.batch_size, self.steps_per_epoch, self.seed, self.step)
        return Mixed(self.groups, self.scenes, *dealing, self.alike)


class LatentData(StageData):
    """Latents of scenes, for the UNet and the flow transformer."""

    def make_rows(self) -> Rows:
        """Columns `latents`, (n, channels, 16, 16) fp32 of unit deviation, and `scene`."""
        pictures = scene_pictures(self.folder, self.scenes, self.world.size)
        latents = encoded(self.work / "vae", pictures, self.folder)
        return Rows(latents=latents, scene=[self.world.random_scene(seed) for seed in range(self.scenes)])
