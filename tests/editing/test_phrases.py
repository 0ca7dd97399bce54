"""Changes as people say them become target prompts."""

import pytest

from nulltext.editing.phrases import Changes, note_on, phrases
from nulltext.errors import UserError
from nulltext.farmyard.world.worlds import WORLD_128

SHEEP = "a photo of a white sheep with a red hat on a green meadow next to a barn"


def test_a_prompt_is_cut_before_its_linking_words():
    assert phrases(SHEEP) == [
        "a photo of a white sheep",
        "with a red hat",
        "on a green meadow",
        "next to a barn",
    ]


@pytest.mark.parametrize("seed", range(40))
def test_phrases_are_the_prompt_again(seed):
    scene = WORLD_128.random_scene(seed)
    for text in WORLD_128.captions(scene):
        assert " ".join(phrases(text)).replace(",", "") == text.replace(",", "")


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({"swap": ["sheep:elk"]}, SHEEP.replace("sheep", "elk")),
        ({"swap": ["white:orange"]}, SHEEP.replace("a white", "an orange")),
        ({"swap": ["WHITE  sheep:black cow"]}, SHEEP.replace("white sheep", "black cow")),
        ({"remove": ["barn"]}, SHEEP.removesuffix(" next to a barn")),
        ({"remove": ["red hat"]}, SHEEP.replace(" with a red hat", "")),
        ({"remove": ["white"]}, SHEEP.replace("white ", "")),
        ({"add": ["a scarf"]}, SHEEP.replace("red hat", "red hat and a scarf")),
        ({"add": ["in the rain"]}, f"{SHEEP} in the rain"),
        ({"set": ["in the snow"]}, SHEEP.replace("on a green meadow", "in the snow")),
        ({"set": ["next to a tree"]}, SHEEP.replace("barn", "tree")),
        ({"set": ["at night"]}, f"{SHEEP} at night"),
        ({"set": ["with a blue hat"]}, SHEEP.replace("red", "blue")),
        (
            {"swap": ["sheep:dog"], "remove": ["barn"], "set": ["on a beach"]},
            "a photo of a white dog with a red hat on a beach",
        ),
    ],
)
def test_a_change_makes_the_target_prompt(change, target):
    assert Changes(**change).apply(SHEEP) == target


def test_a_time_takes_the_place_of_a_time_not_of_a_place():
    made = Changes(set=["at night"]).apply("a cow on a meadow in the morning")
    assert made == "a cow on a meadow at night"


def test_removing_what_has_an_article_leaves_the_article_that_suits():
    assert Changes(remove=["orange"]).apply("a photo of an orange cat") == "a photo of a cat"


def test_tags_get_a_tag():
    assert Changes(add=["a hat"]).apply("cat, mirror, photo") == "cat, mirror, photo, a hat"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"swap": ["cow:horse"]}, "there is no 'cow' in"),
        ({"swap": ["sheep"]}, "write the word, a colon and the new one: sheep:horse"),
        ({"swap": ["sheep:"]}, "write the word, a colon"),
        ({"remove": ["tree"]}, "there is no 'tree' in"),
        ({"remove": ["sheep"]}, "give --swap sheep:... to change it"),
        ({"remove": [""]}, "there is no ''"),
    ],
)
def test_what_cannot_be_made_says_what_to_type(change, said):
    with pytest.raises(UserError, match=said.replace("...", r"\.\.\.")):
        Changes(**change).apply(SHEEP)


def test_instructions_and_strangers_are_met_with_how_to_say_it():
    assert "reads like an instruction" in str(note_on(SHEEP, "make it a horse"))
    assert "few words of the source prompt" in str(note_on(SHEEP, "two parrots"))
    assert note_on(SHEEP, SHEEP.replace("sheep", "horse")) is None
    assert note_on("make-up on a shelf", "make-up on a table") is None
