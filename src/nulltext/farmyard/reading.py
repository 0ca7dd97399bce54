"""What the evaluator sees in a picture: zero-shot classification of animal, colour, hat and place."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.farmyard.scene import ANIMALS, COLOURS, HATS, OBJECTS, PLACE_PHRASES, PLACES, Scene, caption

Prompts = Callable[[str | None], list[str]]


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _whole_captions(hat: str | None) -> list[str]:
    """Captions that leave nothing out, of every animal, colour and place: their mean speaks of the hat alone."""
    worlds = [(a, c, p, o) for a in ANIMALS for c, p, o in zip(COLOURS, PLACES, OBJECTS, strict=True) if o]
    return [
        caption(Scene(animal=animal, colour=colour, hat=hat, place=place, object=thing))
        for animal, colour, place, thing in worlds
    ]


ATTRIBUTES: dict[str, tuple[tuple[str | None, ...], Prompts]] = {
    "animal": (ANIMALS, lambda animal: [f"a photo of {_a(str(animal))}", f"a drawing of {_a(str(animal))}"]),
    "colour": (COLOURS, lambda colour: [_a(f"{colour} {animal}") for animal in ANIMALS]),
    "place": (PLACES, lambda place: [f"{_a(animal)} {PLACE_PHRASES[str(place)]}" for animal in ANIMALS]),
    "hat": (HATS, lambda hat: _whole_captions(hat)),
}
"""Each attribute's values, and prompts whose mean embedding stands for a value (Radford et al., section 3.1.4)."""


class Reader:
    """Reads attributes by the nearest mean prompt.

    Args:
        text_features: Texts to unit embeddings (n, d), by the CLIP to read with.
    """

    def __init__(self, text_features: Callable[[list[str]], Tensor]) -> None:
        self.classes: dict[str, Tensor] = {}
        for name, (values, prompts) in ATTRIBUTES.items():
            means = [text_features(prompts(value)).mean(dim=0) for value in values]
            self.classes[name] = F.normalize(torch.stack(means), dim=-1)  # (values, d)

    def read(self, image: Tensor) -> dict[str, list[str | None]]:
        """The value of each attribute in each picture, from unit embeddings (n, d)."""
        read = {}
        for name, (values, _) in ATTRIBUTES.items():
            read[name] = [values[index] for index in (image @ self.classes[name].T).argmax(dim=1).tolist()]
        return read

    def shares_read(self, image: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
        """For each attribute the share of pictures in which it is read as the scene has it."""
        return {
            name: sum(a == getattr(scene, name) for a, scene in zip(found, scenes, strict=True)) / len(scenes)
            for name, found in self.read(image).items()
        }
