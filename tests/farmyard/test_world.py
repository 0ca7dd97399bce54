"""Laws of the world: determinism, true changes and their masks, captions that say what is there."""

import hashlib
import itertools

import numpy as np
import pytest

from nulltext.errors import UserError
from nulltext.farmyard.recipe.benchmark import EDIT_TYPES, scene_edits, true_mask
from nulltext.farmyard.world import (
    HELD_OUT_SEEDS,
    WORLD_128,
    Scene,
    changed_pixels,
    draw,
    replace,
)
from nulltext.farmyard.world.captions import read_caption, words_of
from nulltext.farmyard.world.scene import ANIMALS, COLOURS, LIGHTS, TIMES, WEATHERS

PLAIN = Scene(size=0.55, x=0.46, object_x=0.8)
EVERY_VALUE = [
    (field, value) for field, values in {**WORLD_128.choices, "light": LIGHTS}.items() for value in values
]
UNSAID = {"hat": None, "object": None, "weather": None, "stature": None, "time": "day", "facing": "left"}
"""What a caption means by passing over a field."""


def test_the_world_is_drawn_to_the_byte() -> None:
    seen = hashlib.sha256()
    for seed in [*range(60), *HELD_OUT_SEEDS[:60]]:
        scene = WORLD_128.random_scene(seed)
        assert scene == WORLD_128.random_scene(seed)
        seen.update(draw(scene, 128).tobytes())
        seen.update("|".join(WORLD_128.captions(scene)).encode())
    assert seen.hexdigest() == "8b26195e407d048f3ee98e6bf70b160f64c318cbfff1fa9322cae1ad2bf35774"


@pytest.mark.parametrize(("field", "value"), EVERY_VALUE)
@pytest.mark.parametrize("size", [128, 256])
def test_every_value_is_drawn(field: str, value: str | None, size: int) -> None:
    picture = draw(replace(WORLD_128.random_scene(5), **{field: value}), size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))
    assert np.asarray(picture).std() > 20


@pytest.mark.parametrize("field", WORLD_128.choices)
def test_every_value_looks_different(field: str) -> None:
    scenes = [replace(PLAIN, **{field: value}) for value in WORLD_128.choices[field]]
    for a, b in itertools.combinations(scenes, 2):
        assert changed_pixels(a, b, 128, threshold=20).sum() > 300, (a, b)


def silhouette(animal: str, **more: str) -> np.ndarray:
    """Where an animal hides the place, whatever its colours: bool (128, 128)."""
    places = [replace(PLAIN, animal=animal, place=place, **more) for place in ("meadow", "forest", "snow")]
    empty = ~changed_pixels(places[0], places[1], 128, threshold=0)
    return empty | ~changed_pixels(places[0], places[2], 128, threshold=0)


def test_animals_differ_by_shape_alone() -> None:
    shapes = {animal: silhouette(animal) for animal in ANIMALS}
    for a, b in itertools.combinations(ANIMALS, 2):
        overlap = (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
        assert overlap < 0.8, (a, b, overlap)


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_colour_changes_only_the_animal_and_most_of_it(animal: str) -> None:
    body = silhouette(animal)
    padded = np.pad(body, 1)  # a pixel of the rim is half of the background, and in no silhouette
    grown = np.any([padded[y : y + 128, x : x + 128] for y in range(3) for x in range(3)], axis=0)
    for a, b in itertools.combinations(COLOURS, 2):
        recoloured = changed_pixels(
            replace(PLAIN, animal=animal, colour=a), replace(PLAIN, animal=animal, colour=b), 128, threshold=0
        )
        assert not (recoloured & ~grown).any(), (a, b)
        assert recoloured.sum() > 0.7 * body.sum(), (a, b)


@pytest.mark.parametrize("animal", ANIMALS)
def test_an_animal_that_looks_right_is_its_own_mirror_image(animal: str) -> None:
    middle = {"animal": animal, "x": 0.5, "seed": 0}
    left, right = (
        np.asarray(draw(replace(PLAIN, facing=facing, **middle), 128), int) for facing in ("left", "right")
    )
    body = np.zeros((128, 128), bool)
    body[70:112, 40:88] = True  # what lies behind is not mirrored
    shape = np.minimum(silhouette(animal, x=0.5), body)
    difference = np.abs(left[:, ::-1] - right).max(axis=2)[shape[:, ::-1]]
    assert np.mean(difference < 24) > 0.9  # but for the rounding of round shapes


def test_statures_are_sizes() -> None:
    for animal in ANIMALS:
        wide = {}
        for stature in ("small", None, "big"):
            columns = np.flatnonzero(silhouette(animal, stature=stature).any(axis=0))
            wide[stature] = columns[-1] - columns[0] + 1
        assert wide["small"] < 0.8 * wide[None] and wide["big"] > 1.15 * wide[None], animal


def test_a_change_of_the_animal_leaves_what_is_behind_it() -> None:
    scene = replace(PLAIN, object="windmill", place="beach", stature="small")
    for change in ({"hat": "red hat"}, {"facing": "right"}, {"animal": "duck"}, {"colour": "pink"}):
        changed = changed_pixels(scene, replace(scene, **change), 128, threshold=0)
        assert changed.any() and not changed[:50].any(), change
    thing = changed_pixels(scene, replace(scene, object="cactus"), 128, threshold=0)
    assert thing.any() and not thing[:, :60].any()


@pytest.mark.parametrize(("time", "weather"), list(itertools.product(TIMES, WEATHERS)))
def test_an_edit_changes_nothing_outside_its_mask(time: str, weather: str | None) -> None:
    scene = replace(PLAIN, time=time, weather=weather, seed=3)
    for change in ({"hat": "party hat"}, {"animal": "rabbit"}, {"object": "tractor"}):
        after = replace(scene, **change)
        mask = changed_pixels(scene, after, 128, threshold=0)
        before, edited = np.asarray(draw(scene, 128)), np.asarray(draw(after, 128))
        assert 0 < mask.mean() < 0.5
        assert np.array_equal(before[~mask], edited[~mask])


def test_every_caption_reads_back_as_its_scene() -> None:
    for seed in range(150):
        scene = WORLD_128.random_scene(seed)
        for text in WORLD_128.captions(scene):
            said = read_caption(text)
            assert all(getattr(scene, field) == value for field, value in said.items()), text
            assert all(
                said.get(field, nothing) == getattr(scene, field) for field, nothing in UNSAID.items()
            ), text
            assert "animal" in said


def test_the_full_caption_says_everything_in_the_known_words() -> None:
    scene = replace(
        PLAIN, hat="red hat", object="tree", stature="small", facing="right", time="night", weather="rain"
    )
    full = WORLD_128.caption(scene)
    assert full == (
        "a photo of a small white sheep with a red hat looking right on a green meadow next to a tree at night"
        " in the rain"
    )
    assert set(read_caption(full)) == set(WORLD_128.choices)
    assert WORLD_128.caption(PLAIN) == "a photo of a white sheep on a green meadow"
    assert WORLD_128.caption(
        replace(PLAIN, animal="elk", colour="orange", style="drawing", place="snow")
    ) == ("a drawing of an orange elk in the snow")


def test_phrasings_name_one_thing_in_many_ways() -> None:
    assert read_caption("A huge grey hen in the snow, near a fence") == {
        "stature": "big",
        "colour": "gray",
        "animal": "chicken",
        "place": "snow",
        "object": "fence",
    }
    assert read_caption("while it snows on snowy ground")["weather"] == "snowfall"
    assert len({words for words in WORLD_128.captions(WORLD_128.random_scene(1))}) > 60


def test_a_swap_of_one_word_swaps_one_word_of_every_phrasing() -> None:
    scene = WORLD_128.random_scene(11)
    for a, b in zip(
        WORLD_128.captions(replace(scene, animal="dog", colour="white")),
        WORLD_128.captions(replace(scene, animal="cat", colour="white")),
        strict=True,
    ):
        pairs = [pair for pair in zip(words_of(a), words_of(b), strict=True) if pair[0] != pair[1]]
        assert len(pairs) == 1 and pairs[0][1] == "cat"


def test_no_training_sees_a_held_out_scene() -> None:
    assert HELD_OUT_SEEDS.start == 1_000_000
    seen = {draw(WORLD_128.random_scene(seed), 128).tobytes() for seed in range(64)}
    assert not seen & {draw(WORLD_128.random_scene(HELD_OUT_SEEDS[k]), 128).tobytes() for k in range(64)}


def test_the_benchmark_has_poses_and_true_masks() -> None:
    edits = scene_edits(WORLD_128)
    assert len(edits) == 140 == sum(count for _, count, _ in EDIT_TYPES)
    poses = [edit for name, edit in edits if name == "5_change_attribute_pose"]
    assert len(poses) == 8 and all(edit.before.facing != edit.after.facing for edit in poses)
    for edit in poses[:2]:
        mask = true_mask(edit, WORLD_128)
        cells = mask.reshape(128, 4, 128, 4)
        assert np.array_equal(cells.any(axis=(1, 3)), cells.all(axis=(1, 3))) and 0.02 < mask.mean() < 0.6


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
        WORLD_128.caption(Scene(), 99)
