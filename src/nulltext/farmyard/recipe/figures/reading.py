"""What a CLIP sees in a picture of the farmyard: zero-shot classification of each of a world's fields."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.farmyard.world.scene import Scene, replace
from nulltext.farmyard.world.worlds import World

PROMPTS = 40
"""Full captions whose mean embedding represents a value (Radford et al., section 3.1.4)."""
FIRST_SEED = 900_000
"""Seed of the first of the scenes that these captions say; no training uses it."""


class Reader:
    """Classifies by the nearest mean prompt.

    Args:
        world: Whose fields.
        text_features: Texts to unit embeddings (n, d), by the CLIP to read with.
    """

    def __init__(self, world: World, text_features: Callable[[list[str]], Tensor]) -> None:
        self.values = world.choices
        scenes = [world.random_scene(FIRST_SEED + k) for k in range(PROMPTS)]
        self.classes: dict[str, Tensor] = {}
        for name, values in self.values.items():
            texts = [[world.caption(replace(scene, **{name: value})) for scene in scenes] for value in values]
            means = [text_features(of_value).mean(dim=0) for of_value in texts]
            self.classes[name] = F.normalize(torch.stack(means), dim=-1)  # (values, d)

    def read(self, image: Tensor) -> dict[str, list[str | None]]:
        """The value of each field in each picture, from unit embeddings (n, d)."""
        return {
            name: [values[index] for index in (image @ self.classes[name].T).argmax(dim=1).tolist()]
            for name, values in self.values.items()
        }

    def accuracy(self, image: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """For each field the share of pictures in which it is read as the scene has it."""
        return {
            name: sum(a == getattr(scene, name) for a, scene in zip(found, scenes, strict=True)) / len(scenes)
            for name, found in self.read(image).items()
        }
