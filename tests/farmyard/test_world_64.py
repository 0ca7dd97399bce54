"""Laws of the first world: its bytes, counterfactuals that change one thing, captions of equal length."""

import hashlib
import itertools
from functools import partial

import numpy as np
import pytest

from nulltext.errors import UserError
from nulltext.farmyard import world
from nulltext.farmyard.world import HELD_OUT_SEEDS, WORLD_64, Scene, replace
from nulltext.farmyard.world.scene import LIGHTS, STYLES

draw, changed_pixels = partial(world.draw, size=64), partial(world.changed_pixels, size=64)
random_scene, caption, short_captions = WORLD_64.random_scene, WORLD_64.caption, WORLD_64.short_captions
CAPTION_VARIANTS = len(WORLD_64.phrasings)
CHOICES = WORLD_64.choices
ANIMALS, COLOURS = CHOICES["animal"], CHOICES["colour"]
EVERY_VALUE = [(field, value) for field, values in {**CHOICES, "light": LIGHTS}.items() for value in values]


def test_the_first_world_is_as_it_was_to_the_byte() -> None:
    seen = hashlib.sha256()
    for seed in [*range(150), *HELD_OUT_SEEDS[:150]]:
        scene = random_scene(seed)
        seen.update(draw(scene).tobytes())
        seen.update("|".join(WORLD_64.captions(scene)).encode())
    assert seen.hexdigest() == "6956c206551b3455244799a918168b72889669de6fec7c2603bd986b99f2b624"
    larger = hashlib.sha256()
    for seed in range(20):
        larger.update(
            draw(random_scene(seed), size=128).tobytes() + draw(random_scene(seed), size=512).tobytes()
        )
    assert larger.hexdigest() == "c8871df167f5cfc5d57eb5d23f01d5c234e54dbd3146134fdf3e05a500049e0d"


@pytest.mark.parametrize("seed", [0, 17, HELD_OUT_SEEDS.start])
def test_same_scene_same_bytes(seed: int) -> None:
    scene = random_scene(seed)
    assert scene == random_scene(seed)
    first = draw(scene).tobytes()
    draw(random_scene(seed + 1))
    assert draw(scene).tobytes() == first


@pytest.mark.parametrize(("field", "value"), EVERY_VALUE)
@pytest.mark.parametrize("size", [64, 256])
def test_every_value_is_drawn(field: str, value: str | None, size: int) -> None:
    picture = draw(replace(random_scene(5), **{field: value}), size=size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert np.asarray(picture).std() > 50


@pytest.mark.parametrize("field", CHOICES)
def test_every_value_looks_different(field: str) -> None:
    scenes = [replace(Scene(), **{field: value}) for value in CHOICES[field]]
    for a, b in itertools.combinations(scenes, 2):
        assert changed_pixels(a, b, threshold=20).sum() > 150, (a, b)


def silhouette(animal: str) -> np.ndarray:
    """Where two bodies of one animal differ from an empty place, whatever their colours: bool (64, 64)."""
    places = [Scene(animal=animal, place=place) for place in ("meadow", "forest", "snow")]
    empty = ~changed_pixels(places[0], places[1], threshold=0)
    return empty | ~changed_pixels(places[0], places[2], threshold=0)


def test_animals_differ_by_shape_alone() -> None:
    shapes = {animal: silhouette(animal) for animal in ANIMALS}
    for a, b in itertools.combinations(ANIMALS, 2):
        overlap = (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
        assert overlap < 0.8, (a, b, overlap)


def test_animals_are_large() -> None:
    for animal in ANIMALS:
        columns = np.flatnonzero(silhouette(animal).any(axis=0))
        assert 0.55 <= (columns[-1] - columns[0] + 1) / 64 <= 0.8, animal


@pytest.mark.parametrize("style", STYLES)
def test_replace_changes_only_what_the_word_names(style: str) -> None:
    scene = replace(random_scene(3), style=style, animal="dog", hat=None, object=None)
    hat = changed_pixels(scene, replace(scene, hat="red hat"), threshold=0)
    assert hat.any() and not hat[scene_row(scene, 0.7) :].any()  # a hat touches nothing below the eyes
    thing = changed_pixels(scene, replace(scene, object="barn"), threshold=0)
    assert thing.any() and not thing[:, :32].any()  # a barn stands in the right half
    dog = silhouette("dog")
    assert not (
        changed_pixels(Scene(animal="dog"), Scene(animal="dog", place="beach"), threshold=0) & dog
    ).any()


def scene_row(scene: Scene, height: float) -> int:
    """The row of the 64 that lies `height` of the animal's size above its feet."""
    return round(64 * (scene.y - height * scene.size))


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_colour_changes_only_the_animal_and_most_of_it(animal: str) -> None:
    body = silhouette(animal)
    padded = np.pad(body, 1)  # a pixel of the rim is half of the background, and in no silhouette
    rows, columns = body.shape
    grown = np.any([padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=0)
    for a, b in itertools.combinations(COLOURS, 2):
        scenes = (Scene(animal=animal, colour=a), Scene(animal=animal, colour=b))
        recoloured = changed_pixels(*scenes, threshold=0)
        assert not (recoloured & ~grown).any(), (a, b)
        assert recoloured.sum() > 0.7 * body.sum(), (a, b)


def test_captions_keep_their_length_under_swaps() -> None:
    for seed, variant in itertools.product(range(20), range(CAPTION_VARIANTS)):
        scene = random_scene(seed)
        count = len(caption(scene, variant).split())
        for animal, colour in itertools.product(ANIMALS, COLOURS):
            assert len(caption(replace(scene, animal=animal, colour=colour), variant).split()) == count


def test_captions_are_known() -> None:
    scene = Scene(hat="red hat", object="tree")
    assert caption(scene) == "a photo of a white sheep with a red hat on a green meadow next to a tree"
    orange_elk = replace(
        scene, animal="elk", colour="orange", hat=None, object=None, place="snow", style="drawing"
    )
    assert caption(orange_elk) == "a drawing of an orange elk in the snow"
    assert "an elk in the snow" in short_captions(orange_elk)
    scenes = [random_scene(seed) for seed in range(200)]
    assert max(len(caption(scene).split()) for scene in scenes) == 18  # a word is a token, and there are 22
    assert not any(caption(scene) in short_captions(scene) for scene in scenes)


def test_held_out_seeds_stand_apart() -> None:
    assert HELD_OUT_SEEDS.start == 1_000_000
    seen = {draw(random_scene(seed)).tobytes() for seed in range(64)}
    assert not seen & {draw(random_scene(HELD_OUT_SEEDS[k])).tobytes() for k in range(64)}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"animal": "zebra"}, "sheep, horse"),
        ({"hat": "crown"}, "none, red hat"),
        ({"wind": "gale"}, "animal, colour"),
        ({"size": 3.0}, "0.1 to 1.0"),
    ],
)
def test_what_cannot_be_drawn_is_named(changes: dict[str, str], names: str) -> None:
    with pytest.raises(UserError, match=names):
        replace(Scene(), **changes)


def test_unknown_caption_variant() -> None:
    with pytest.raises(UserError, match="0 to"):
        caption(Scene(), 99)
