"""What each stage of the farmyard's training sees: pictures, captioned pictures, captioned latents."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nulltext.farmyard.cache import photo_like_pictures, scene_pictures
from nulltext.farmyard.scene import Scene, random_scene
from nulltext.farmyard.words import captions


class Order(Sampler[list[int]]):
    """Batches of indices that depend on the seed and the step alone, so that a resumed training sees the same.

    The items are dealt out like cards, a new shuffled deck when one is used up.

    Args:
        size: How many items there are.
        batch_size: Items in a batch.
        batches: Batches in an epoch.
        seed: With the step, the seed of the draw.
        step: Says which step comes next; Lightning cuts the epochs elsewhere after a resume.
    """

    def __init__(self, size: int, batch_size: int, batches: int, seed: int, step: Callable[[], int]) -> None:
        self.size, self.batch_size, self.batches = size, batch_size, batches
        self.seed, self.step = seed, step

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """The batches from the step that comes next."""
        first = self.step()
        for step in range(first, first + self.batches):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """The batch of one step."""
        first = step * self.batch_size
        cards: list[int] = []
        for deck in range(first // self.size, (first + self.batch_size - 1) // self.size + 1):
            cards += np.random.default_rng([self.seed, deck]).permutation(self.size).tolist()
        return cards[first % self.size :][: self.batch_size]


class Rows(Dataset[dict[str, Any]]):
    """Columns of equal length; a list of indices gives a batch at once, without collation item by item."""

    def __init__(self, **columns: Tensor | Sequence[Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def __getitems__(self, indices: list[int]) -> dict[str, Any]:
        """The rows of a batch, column by column."""
        return {
            name: column[indices] if isinstance(column, Tensor) else [column[i] for i in indices]
            for name, column in self.columns.items()
        }


def to_pixels(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) fp32 in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_tensor(pictures: np.ndarray) -> Tensor:
    """A (memory-mapped, read-only) array as a tensor of its own."""
    return torch.from_numpy(np.array(pictures))


class StageData(L.LightningDataModule, ABC):
    """What the stages have in common: where data lie and how it is dealt out.

    Args:
        work: Where everything is kept: pictures and latents in its `data`, stages in folders of their names.
        scenes: Number of training scenes, seeds 0 to scenes - 1.
        batch_size: Pictures in a batch.
        steps_per_epoch: Batches in what Lightning calls an epoch; checkpoints and curves come at its end.
        seed: Seed of the order.
    """

    def __init__(
        self,
        work: Path = Path("lightning_logs/farmyard"),
        scenes: int = 30000,
        batch_size: int = 32,
        steps_per_epoch: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.work, self.folder, self.scenes, self.seed = work, work / "data", scenes, seed
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
        pictures = [scene_pictures(self.folder, self.scenes)]
        if self.photo_like:
            pictures.append(photo_like_pictures(self.folder, self.photo_like))
        return Rows(picture=torch.cat([to_tensor(part) for part in pictures]))


class Mixed(Order):
    """Batches of which a share are scenes that agree in everything that is named but one thing, such as the animal.

    Told apart only by it, they are the negatives from which a contrastive model learns to see it.

    Args:
        scenes: The scenes that the indices mean.
        batch_size: Scenes in a batch.
        batches: Batches in an epoch.
        seed: With the step, the seed of the draw.
        step: Says which step comes next.
        alike: Share of such rows in a batch.
        differing: In what they differ; each is drawn as often.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        batch_size: int,
        batches: int,
        seed: int,
        step: Callable[[], int],
        alike: float,
        differing: Sequence[str] = ("animal",),
    ) -> None:
        super().__init__(len(scenes), batch_size, batches, seed, step)
        self.groups = [like_scenes(scenes, name) for name in differing]
        self.alike = int(alike * batch_size)

    def batch(self, step: int) -> list[int]:
        """Rows of like scenes, then scenes as the cards fall."""
        rng = np.random.default_rng([self.seed, step, 1])
        like: list[int] = []
        while len(like) < self.alike:
            groups = self.groups[rng.integers(len(self.groups))] if len(self.groups) > 1 else self.groups[0]
            group = groups[rng.integers(len(groups))]
            like += [members[rng.integers(len(members))] for members in group.values()]
        return (like[: self.alike] + super().batch(step))[: self.batch_size]


def like_scenes(scenes: Sequence[Scene], name: str) -> list[dict[str, list[int]]]:
    """Groups of scenes that agree in all but one attribute; in a group, the scenes of each of its values."""
    others = [other for other in ("animal", "colour", "hat", "place", "style") if other != name]
    groups: dict[tuple[str | None, ...], dict[str, list[int]]] = {}
    for index, scene in enumerate(scenes):
        key = tuple(getattr(scene, other) for other in others)
        groups.setdefault(key, {}).setdefault(getattr(scene, name), []).append(index)
    return list(groups.values())


class CaptionedPictureData(StageData):
    """Scenes and their captions, for the CLIP.

    Args:
        alike: Share of a batch whose scenes differ in one thing and in little else.
        differing: Which things these are.
        stage: As `StageData`'s.
    """

    def __init__(self, alike: float = 0.5, differing: tuple[str, ...] = ("animal",), **stage: Any) -> None:
        super().__init__(**stage)
        self.alike, self.differing = alike, differing
        self.world = [random_scene(seed) for seed in range(self.scenes)]

    def make_rows(self) -> Rows:
        """Columns `picture`, (n, size, size, 3) uint8, and `captions`, a list of phrasings each."""
        return Rows(
            picture=to_tensor(scene_pictures(self.folder, self.scenes)), captions=captions(self.world)
        )

    def batches(self, rows: Rows) -> Sampler[list[int]]:
        """Half at random, half hard."""
        mixing = (self.batch_size, self.steps_per_epoch, self.seed, self.step, self.alike, self.differing)
        return Mixed(self.world, *mixing)


class LatentData(StageData):
    """Latents of scenes and their captions, for the UNet."""

    def make_rows(self) -> Rows:
        """Columns `latents`, (n, 4, 16, 16) fp32 of unit deviation, and `captions`, a list of phrasings each."""
        from nulltext.farmyard.vae import encoded

        latents = encoded(self.work / "vae", scene_pictures(self.folder, self.scenes), self.folder)
        return Rows(latents=latents, captions=captions([random_scene(seed) for seed in range(self.scenes)]))
