"""Scenes that agree in everything but one thing: the negatives from which a contrastive model learns to see it."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from nulltext.farmyard.world.scene import Scene, replace
from nulltext.farmyard.world.worlds import World


def contrasts(world: World, sets: int, differing: Sequence[str]) -> tuple[list[Scene], list[range]]:
    """Sets of scenes that differ in one field, every value of it once.

    Args:
        world: Whose scenes.
        sets: How many; set k is made from the scene of seed k.
        differing: The fields in which they differ, in turn.

    Returns:
        The scenes of all sets, one set after another, and the indices of each set.
    """
    made = []
    for seed in range(sets):
        field = differing[seed % len(differing)]
        base = world.random_scene(seed)
        made.append([replace(base, **{field: value}) for value in world.choices[field]])
    starts = accumulate(map(len, made), initial=0)
    return [scene for scenes in made for scene in scenes], [range(a, b) for a, b in pairwise(starts)]
