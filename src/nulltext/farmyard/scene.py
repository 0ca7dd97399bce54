"""The farmyard world: scenes that are made up, named and changed one word at a time.

A `Scene` says everything about a picture; `drawing.draw` is a pure function of it, so that
`replace(scene, animal="horse")` gives the true counterfactual of an edit and `drawing.changed_pixels` its true mask.
"""

import dataclasses
import random
from dataclasses import dataclass

from nulltext.errors import UserError

ANIMALS = ("sheep", "horse", "cow", "chicken", "pig", "elk", "dog", "cat")
COLOURS = ("white", "black", "brown", "gray", "orange")
HATS = (None, "red hat", "blue hat", "straw hat", "party hat")
PLACES = ("meadow", "snow", "desert", "beach", "forest")
OBJECTS = (None, "tree", "fence", "barn", "haystack")
STYLES = ("photo", "drawing")
LIGHTS = ("morning", "noon", "evening")

HELD_OUT_SEEDS = range(1_000_000, 2_000_000)
"""Seeds of scenes that no training ever draws; pictures for tests, figures and benchmarks come from here."""

PLACE_PHRASES = {
    "meadow": "on a green meadow",
    "snow": "in the snow",
    "desert": "in the desert",
    "beach": "on a sandy beach",
    "forest": "in the forest",
}


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        animal: One of `ANIMALS`.
        colour: One of `COLOURS`, the colour of its body.
        hat: One of `HATS`; None for none.
        place: One of `PLACES`.
        object: One of `OBJECTS`, what stands behind the animal; None for nothing.
        style: One of `STYLES`.
        light: One of `LIGHTS`.
        facing: Always "left".
        x: Where the middle of the animal's feet is, a part of the picture's width.
        y: Where its feet are, a part of the picture's height.
        size: How long the animal is, a part of the picture's width.
        object_x: Where the middle of the object is, a part of the picture's width.
        seed: Lays out hills, clouds and trunks.
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

    def __post_init__(self) -> None:
        """Refuse words and numbers that cannot be drawn."""
        for field, known in _KNOWN.items():
            if getattr(self, field) not in known:
                names = ", ".join("none" if word is None else word for word in known)
                raise UserError(f"the farmyard has no {field} {getattr(self, field)!r}; it has: {names}")
        for field, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, field) <= high:
                raise UserError(
                    f"{field} of a scene is {getattr(self, field)}; give a number from {low} to {high}"
                )


_KNOWN: dict[str, tuple[str | None, ...]] = {
    "animal": ANIMALS,
    "colour": COLOURS,
    "hat": HATS,
    "place": PLACES,
    "object": OBJECTS,
    "style": STYLES,
    "light": LIGHTS,
    "facing": ("left",),
}
_BOUNDS = {"x": (0.0, 1.0), "y": (0.0, 1.0), "size": (0.1, 1.0), "object_x": (0.0, 1.0)}


def random_scene(seed: int) -> Scene:
    """Make up a scene, always the same for one seed; seeds in `HELD_OUT_SEEDS` are kept from training."""
    draws = random.Random(seed)
    return Scene(
        animal=draws.choice(ANIMALS),
        colour=draws.choice(COLOURS),
        hat=draws.choice(HATS),
        place=draws.choice(PLACES),
        object=draws.choice(OBJECTS),
        style=draws.choices(STYLES, weights=(3, 1))[0],
        light=draws.choice(LIGHTS),
        x=round(draws.uniform(0.45, 0.51), 3),
        y=round(draws.uniform(0.89, 0.93), 3),
        size=round(draws.uniform(0.64, 0.7), 3),
        object_x=round(draws.uniform(0.78, 0.88), 3),
        seed=seed,
    )


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


def caption(scene: Scene, variant: int | None = None) -> str:
    """Say what a scene shows.

    Args:
        scene: The scene.
        variant: Which of the `CAPTION_VARIANTS` phrasings; None or 0 is the full one, such as
            "a photo of a white sheep with a red hat on a green meadow next to a tree".

    Raises:
        UserError: There is no such phrasing.
    """
    phrasing = variant or 0
    if not 0 <= phrasing < CAPTION_VARIANTS:
        raise UserError(
            f"there is no caption variant {variant}; give a number from 0 to {CAPTION_VARIANTS - 1}"
        )
    words = {
        "kind": f"a {scene.style} of ",
        "it": _with_article(scene.animal),
        "it_coloured": _with_article(f"{scene.colour} {scene.animal}"),
        "hat": f" with a {scene.hat}" if scene.hat else "",
        "place": PLACE_PHRASES[scene.place],
        "object": f" next to a {scene.object}" if scene.object else "",
    }
    return _PHRASINGS[phrasing].format(**words)


_PHRASINGS = (
    "{kind}{it_coloured}{hat} {place}{object}",
    "{it_coloured}{hat} {place}{object}",
    "{kind}{it_coloured}{hat} {place}",
    "{kind}{it_coloured}{hat}",
    "{kind}{it}{hat} {place}{object}",
    "{place} {it_coloured}{hat}",
    "{it_coloured}{hat} {place}",
    "{it}{hat} {place}",
    "{kind}{it}{hat}",
    "{it_coloured}{hat}",
    "{it}{hat}",
)
"""Colour, place and object may be left out. A hat never is: no word for it then means that there is none, which a
CLIP learns only if captions never pass over one."""
CAPTION_VARIANTS = len(_PHRASINGS)


def short_captions(scene: Scene) -> list[str]:
    """Return every caption that leaves something out, each once, longest phrasings first."""
    full = caption(scene)
    return [
        text for text in dict.fromkeys(caption(scene, v) for v in range(1, CAPTION_VARIANTS)) if text != full
    ]


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
