"""A scene: everything that a picture of the farmyard shows, in words and a few numbers.

`drawing.draw` is a pure function of a `Scene`, so `replace(scene, animal="horse")` gives the true counterfactual of
an edit and `drawing.changed_pixels` its true mask. `worlds` says which words belong together and how they are said.
"""

import dataclasses
from dataclasses import dataclass

from nulltext.errors import UserError

ANIMALS = ("sheep", "horse", "cow", "chicken", "pig", "elk", "dog", "cat", "duck", "rabbit")
COLOURS = ("white", "black", "brown", "gray", "orange", "yellow", "pink")
HATS = (None, "red hat", "blue hat", "straw hat", "party hat")
PLACES = ("meadow", "snow", "desert", "beach", "forest")
OBJECTS = (None, "tree", "fence", "barn", "haystack", "windmill", "tractor", "cactus", "snowman")
STYLES = ("photo", "drawing")
LIGHTS = ("morning", "noon", "evening")
FACINGS = ("left", "right")
TIMES = ("day", "morning", "evening", "night")
WEATHERS = (None, "rain", "snowfall")
STATURES = (None, "small", "big")

HELD_OUT_SEEDS = range(1_000_000, 2_000_000)
"""Seeds of scenes that no training ever draws; pictures for tests, figures and benchmarks come from here."""


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        animal: One of `ANIMALS`.
        colour: One of `COLOURS`, the colour of its body.
        hat: One of `HATS`; None for none.
        place: One of `PLACES`.
        object: One of `OBJECTS`, behind the animal; None for nothing.
        style: One of `STYLES`.
        light: One of `LIGHTS`: a faint tint that no caption mentions.
        facing: One of `FACINGS`: where the animal looks.
        x: Middle of the animal's feet, in picture widths.
        y: Height of its feet, in picture heights from the top.
        size: Length of the animal, in picture widths, before `stature`.
        object_x: Middle of the object, in picture widths.
        seed: Lays out hills, clouds, trunks, stars, raindrops.
        time: One of `TIMES`: the time of day, sky and all.
        weather: One of `WEATHERS`; None for neither rain nor snowfall.
        stature: One of `STATURES`; None for neither small nor big.
    """

    animal: str = "sheep"
    colour: str = "white"
    hat: str | None = None
    place: str = "meadow"
    object: str | None = None
    style: str = "photo"
    light: str = "noon"
    facing: str = "left"
    x: float = 0.47
    y: float = 0.91
    size: float = 0.68
    object_x: float = 0.82
    seed: int = 0
    time: str = "day"
    weather: str | None = None
    stature: str | None = None

    def __post_init__(self) -> None:
        """Refuse words and numbers that cannot be drawn."""
        for field, known in KNOWN.items():
            if getattr(self, field) not in known:
                names = ", ".join("none" if word is None else word for word in known)
                raise UserError(f"the farmyard has no {field} {getattr(self, field)!r}; it has: {names}")
        for field, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, field) <= high:
                raise UserError(
                    f"{field} of a scene is {getattr(self, field)}; give a number from {low} to {high}"
                )


KNOWN: dict[str, tuple[str | None, ...]] = {
    "animal": ANIMALS,
    "colour": COLOURS,
    "hat": HATS,
    "place": PLACES,
    "object": OBJECTS,
    "style": STYLES,
    "light": LIGHTS,
    "facing": FACINGS,
    "time": TIMES,
    "weather": WEATHERS,
    "stature": STATURES,
}
"""Every word field of a scene and what it may be."""
_BOUNDS = {"x": (0.0, 1.0), "y": (0.0, 1.0), "size": (0.1, 1.0), "object_x": (0.0, 1.0)}


def replace(scene: Scene, **changes: str | float | None) -> Scene:
    """Return the scene with some fields changed.

    Raises:
        UserError: A field does not exist, or its value cannot be drawn; the message names the known ones.
    """
    fields = [field.name for field in dataclasses.fields(Scene)]
    for name in changes:
        if name not in fields:
            raise UserError(f"a scene has no {name!r}; it has: {', '.join(fields)}")
    return dataclasses.replace(scene, **changes)  # type: ignore[arg-type]  # __post_init__ checks the values
