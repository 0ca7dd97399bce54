"""How scenes are said in words, and how words are read back.

A `Phrasing` is a word order and a choice of synonyms. Colour, place and style may be left out. A hat, an object, the
time, the weather and the stature never are: no word for them then means that there are none, which a CLIP learns only
if captions never pass over one. An animal looks to the left unless its caption says otherwise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nulltext.farmyard.world.scene import Scene

Sayings = Mapping[str | None, tuple[str, ...]]

NEAR = ("next to", "beside", "near", "by", "in front of")
WEARING = ("with", "wearing", "in")


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _each(
    nothing: tuple[str, ...], before: tuple[str, ...], things: Iterable[str]
) -> dict[str | None, tuple[str, ...]]:
    """How nothing is said, and every thing after every one of some words, the first words first."""
    said: dict[str | None, tuple[str, ...]] = {None: nothing}
    for thing in things:
        said[thing] = tuple(f"{words} {_article(thing)}" for words in before)
    return said


SAYINGS: Mapping[str, Sayings] = MappingProxyType(
    {
        "style": {
            "photo": ("a photo of", "a photograph of"),
            "drawing": ("a drawing of", "a sketch of", "a cartoon of"),
        },
        "stature": {None: ("",), "small": ("small", "little", "tiny"), "big": ("big", "large", "huge")},
        "colour": {
            "white": ("white",),
            "black": ("black",),
            "brown": ("brown",),
            "gray": ("gray", "grey"),
            "orange": ("orange",),
            "yellow": ("yellow",),
            "pink": ("pink",),
        },
        "animal": {
            "sheep": ("sheep",),
            "horse": ("horse", "pony"),
            "cow": ("cow", "bull"),
            "chicken": ("chicken", "hen"),
            "pig": ("pig", "hog"),
            "elk": ("elk", "moose", "deer"),
            "dog": ("dog", "hound"),
            "cat": ("cat",),
            "duck": ("duck",),
            "rabbit": ("rabbit", "bunny"),
        },
        "hat": _each(
            ("", "", "", "without a hat"), WEARING, ("red hat", "blue hat", "straw hat", "party hat")
        ),
        "facing": {
            "left": ("", "", "looking left", "facing left", "looking to the left"),
            "right": ("looking right", "facing right", "looking to the right"),
        },
        "place": {
            "meadow": ("on a green meadow", "on a meadow", "in a green field", "on the grass"),
            "snow": ("in the snow", "on snowy ground", "in a snowy landscape"),
            "desert": ("in the desert", "in a hot desert", "among the dunes"),
            "beach": ("on a sandy beach", "on the beach", "at the beach", "by the sea"),
            "forest": ("in the forest", "in a forest", "in the woods"),
        },
        "object": _each(
            ("",),
            NEAR,
            ("tree", "fence", "barn", "haystack", "windmill", "tractor", "cactus", "snowman"),
        ),
        "time": {
            "day": ("", "", "by day", "during the day"),
            "morning": ("in the morning", "at sunrise", "at dawn"),
            "evening": ("in the evening", "at sunset", "at dusk"),
            "night": ("at night", "by night", "in the moonlight"),
        },
        "weather": {
            None: ("",),
            "rain": ("in the rain", "in rainy weather", "while it rains"),
            "snowfall": ("in falling snow", "in snowfall", "while it snows"),
        },
    }
)
"""What each value of each field is called, its first name first; "" leaves it unsaid."""

_NOUN = ("stature", "colour", "animal")


@dataclass(frozen=True)
class Phrasing:
    """One way to say scenes.

    Attributes:
        order: Fields in the order in which they are said; "it" is the animal with its stature and colour.
        left_out: Fields that are passed over.
        synonyms: For each field a number from 0 to 1: where in its list of synonyms to choose. 0 is the first.
    """

    order: tuple[str, ...] = ("style", "it", "hat", "facing", "place", "object", "time", "weather")
    left_out: frozenset[str] = frozenset()
    synonyms: Mapping[str, float] = field(default_factory=dict)

    @property
    def says_all(self) -> bool:
        """Whether it passes over nothing that is there."""
        return {"style", "it", "hat", "place", "object"} <= set(self.order) and not self.left_out

    def __call__(self, scene: Scene) -> str:
        """Say a scene."""
        said = (self._it(scene) if part == "it" else self._word(scene, part) for part in self.order)
        return " ".join(words for words in said if words)

    def _it(self, scene: Scene) -> str:
        return _article(" ".join(word for part in _NOUN if (word := self._word(scene, part))))

    def _word(self, scene: Scene, part: str) -> str:
        if part in self.left_out:
            return ""
        names = SAYINGS[part][getattr(scene, part)]
        return names[int(self.synonyms.get(part, 0.0) * len(names))]


def read_caption(text: str) -> dict[str, str | None]:
    """Find what a caption says, field by field; fields that it leaves unsaid are absent.

    Any caption of a scene reads back as the scene's own words, in any order and with any synonyms.
    """
    rest = f" {' '.join(words_of(text))} "
    found: dict[str, str | None] = {}
    for words, part, value in _PHRASES:
        if part not in found and f" {words} " in rest:
            found[part] = value
            rest = rest.replace(f" {words} ", " | ", 1)
    return found


_PHRASES = sorted(
    {
        (words, part, value)
        for part, values in SAYINGS.items()
        for value, names in values.items()
        for words in names
        if words
    },
    key=lambda phrase: (-len(phrase[0].split()), phrase[0]),
)
"""All that can be said, the longest first, so that "in the snow" is found before a shorter phrase within it."""


def words_of(prompt: str) -> list[str]:
    """The lower-case words of a prompt, in order."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", prompt.lower())


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Every word of some texts once, in alphabetical order."""
    return sorted({word for text in texts for word in words_of(text)})
