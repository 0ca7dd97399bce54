"""Batches of one timestep each, which start where the module is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nulltext.data.picture import Picture


class Timestep:
    """One batch: the pictures of a group at one step.

    A plain class: Lightning walks through dataclasses, lists and dicts of a batch, and refuses frozen ones.

    Args:
        step: i, 0 the noisiest.
        group: Number of the group, which is the epoch.
        pictures: The pictures of the group, all of one size; the same objects at every step.
    """

    def __init__(self, step: int, group: int, pictures: tuple[Picture, ...]) -> None:
        self.step, self.group, self.pictures = step, group, pictures


class TimestepLoader:
    """T batches of each group, starting at the module's cursor.

    Lightning restores the number of the batch but does not fast-forward a loader: after a restart it would request
    batch k and get batch 0. This loader reads the module's cursor instead. Its length is always T, by which Lightning
    knows the end of the epoch.

    Args:
        steps: T.
        where: Gives the current group and the module's cursor; T and 0 both mean a new group.
        read: Gives the pictures of a group.
        gave_up: Whether the group is left out from the step just tried on.
    """

    def __init__(
        self,
        steps: int,
        where: Callable[[], tuple[int, int]],
        read: Callable[[int], tuple[Picture, ...]],
        gave_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.steps, self.where, self.read, self.gave_up = steps, where, read, gave_up

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Timestep]:
        group, cursor = self.where()
        pictures = self.read(group)
        if not pictures:
            return
        for step in range(cursor % self.steps, self.steps):
            yield Timestep(step, group, pictures)
            if self.gave_up():
                return
