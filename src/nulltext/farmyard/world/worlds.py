"""The farmyard's editions: which words each knows, how large its pictures are, how its scenes are said."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nulltext.errors import UserError
from nulltext.farmyard.world import scene as known
from nulltext.farmyard.world.captions import Phrasing
from nulltext.farmyard.world.scene import Scene


@dataclass(frozen=True)
class World:
    """An edition of the farmyard.

    Attributes:
        size: Side of its pictures in pixels.
        choices: The fields that captions say, and what each can be here.
        phrasings: The ways to say a scene, the full one first.
        make: Makes up the scene of a seed.
    """

    size: int
    choices: Mapping[str, tuple[str | None, ...]]
    phrasings: tuple[Phrasing, ...]
    make: Callable[[int], Scene]

    def random_scene(self, seed: int) -> Scene:
        """Make up a scene, always the same for one seed; seeds in `HELD_OUT_SEEDS` are for no training."""
        return self.make(seed)

    def caption(self, scene: Scene, variant: int | None = None) -> str:
        """Say what a scene shows.

        Args:
            scene: The scene.
            variant: Which of the phrasings; None or 0 is the full one, such as
                "a photo of a white sheep with a red hat on a green meadow next to a tree".

        Raises:
            UserError: There is no such phrasing.
        """
        number = variant or 0
        if not 0 <= number < len(self.phrasings):
            raise UserError(
                f"there is no caption variant {variant}; give a number from 0 to {len(self.phrasings) - 1}"
            )
        return self.phrasings[number](scene)

    def captions(self, scene: Scene) -> list[str]:
        """All phrasings of a scene, the full one first."""
        return [phrasing(scene) for phrasing in self.phrasings]


def _scene_128(seed: int) -> Scene:
    draws = random.Random(seed)
    return Scene(
        animal=draws.choice(known.ANIMALS),
        colour=draws.choice(known.COLOURS),
        hat=draws.choices(known.HATS, weights=(2, 1, 1, 1, 1))[0],
        place=draws.choice(known.PLACES),
        object=draws.choices(known.OBJECTS, weights=(3, *[1] * 8))[0],
        style=draws.choices(known.STYLES, weights=(3, 1))[0],
        facing=draws.choice(known.FACINGS),
        time=draws.choices(known.TIMES, weights=(2, 1, 1, 1))[0],
        weather=draws.choices(known.WEATHERS, weights=(3, 1, 1))[0],
        stature=draws.choices(known.STATURES, weights=(2, 1, 1))[0],
        x=round(draws.uniform(0.44, 0.5), 3),
        y=round(draws.uniform(0.89, 0.93), 3),
        size=round(draws.uniform(0.53, 0.57), 3),
        object_x=round(draws.uniform(0.76, 0.84), 3),
        seed=seed,
    )


_ORDERS = (
    ("style", "it", "hat", "facing", "place", "object", "time", "weather"),
    ("style", "it", "hat", "facing", "place", "object", "weather", "time"),
    ("style", "it", "facing", "hat", "object", "place", "weather", "time"),
    ("style", "it", "place", "object", "time", "weather", "facing", "hat"),
    ("time", "weather", "style", "it", "hat", "facing", "place", "object"),
    ("place", "object", "time", "weather", "style", "it", "hat", "facing"),
)
_OFTEN_LEFT_OUT = {"style": 0.35, "colour": 0.2, "place": 0.15}
_UNIQUE = ("style", "stature", "colour", "animal", "hat", "facing", "place", "object", "time", "weather")


def _phrasings_128(count: int = 96) -> tuple[Phrasing, ...]:
    """The full one, then made-up ones: an order, synonyms, now and then something left out."""
    made = [Phrasing()]
    for number in range(1, count):
        draws = random.Random(number)
        order = draws.choices(_ORDERS, weights=(6, 2, 1, 1, 1, 1))[0]
        synonyms = {part: 0.0 if draws.random() < 0.3 else draws.random() for part in _UNIQUE}
        left_out = frozenset(part for part, share in _OFTEN_LEFT_OUT.items() if draws.random() < share)
        made.append(Phrasing(order, left_out, synonyms))
    return tuple(made)


_SAID = ("animal", "colour", "hat", "place", "object", "style", "facing", "time", "weather", "stature")
WORLD_128 = World(128, {name: known.KNOWN[name] for name in _SAID}, _phrasings_128(), _scene_128)
WORLDS = {world.size: world for world in (WORLD_128,)}
"""The editions by the side of their pictures."""

SHIPPED = WORLD_128
"""The edition of the model that the package ships."""
random_scene, caption = SHIPPED.random_scene, SHIPPED.caption


def world_of(size: int) -> World:
    """The edition whose pictures have this side.

    Raises:
        UserError: There is none.
    """
    if size not in WORLDS:
        sizes = " and ".join(str(side) for side in WORLDS)
        raise UserError(f"the farmyard has no world of {size} pixels; it has {sizes}")
    return WORLDS[size]
