"""Which pictures are inverted together, which are left to do, and how they are given out by the timestep."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from nulltext.data.frame import Frame
from nulltext.data.metadata import Row
from nulltext.data.picture import Picture
from nulltext.inversion import InversionMethod
from nulltext.models.base import DiffusionModel
from nulltext.runs.finished import expected_facts, finished_names
from nulltext.runs.memory import free_memory, pictures_together


@dataclass(frozen=True)
class Source:
    """A picture that was found and can be decoded, without its pixels."""

    path: Path
    name: str
    prompt: str
    prompt_source: str  # where the prompt was found
    size: tuple[int, int]  # (height, width) in the file, upright
    row: Row
    sha256: str  # hex digest of the file's bytes

    def target(self, frame: Frame) -> tuple[int, int]:
        """(height, width) that it is brought to."""
        return frame.target(self.size[1], self.size[0])


def group_by_size(sources: Sequence[Source], frame: Frame, batch_size: int) -> list[list[Source]]:
    """Groups of at most ``batch_size`` pictures whose results have one size, in order of appearance."""
    sizes = [source.target(frame) for source in sources]
    first = {size: index for index, size in reversed(list(enumerate(sizes)))}
    order = sorted(range(len(sources)), key=lambda index: (first[sizes[index]], index))
    groups: list[list[Source]] = []
    for _, members in groupby(order, key=lambda index: sizes[index]):
        same = [sources[index] for index in members]
        groups += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return groups


def fitting_batch(model: DiffusionModel, sources: Sequence[Source], frame: Frame, processes: int) -> int:
    """As many pictures as the free memory allows at once; processes of one machine share its main memory."""
    if len(sources) < 2:
        return 1
    free = free_memory(model.device) // (processes if model.device.type == "cpu" else 1)
    return pictures_together(model, max((s.target(frame) for s in sources), key=math.prod), free)


def split_finished(
    folder: Path, sources: Sequence[Source], frame: Frame, model: DiffusionModel, method: InversionMethod
) -> tuple[list[Source], set[str]]:
    """The sources, renamed where another picture of the run folder has their name, and the names that are finished."""
    sizes = {s.name: s.target(frame) for s in sources}
    facts = {size: expected_facts(model, method, size) for size in set(sizes.values())}
    wanted = {
        s.name: {**facts[sizes[s.name]], "source_sha256": s.sha256, "prompt": s.prompt, "crop": frame.crop}
        for s in sources
    }
    done, taken = finished_names(folder, wanted)
    renamed = [replace(s, name=f"{s.name}-{s.sha256[:8]}") if s.name in taken else s for s in sources]
    return renamed, done


def match(identity: Mapping[str, Any], sources: Sequence[Source]) -> Source | None:
    """The picture of a checkpoint, under the name that it has there; its file may have been renamed since."""
    same = [s for s in sources if (s.sha256, s.prompt) == (identity["sha256"], identity["prompt"])]
    same.sort(key=lambda source: source.name != identity["name"])
    return replace(same[0], name=identity["name"]) if same else None


class Timestep:
    """One batch: the pictures of a group, which is the epoch's, at step i.

    A plain class: Lightning walks through dataclasses, lists and dicts of a batch, and refuses frozen ones.
    """

    def __init__(self, step: int, pictures: tuple[Picture, ...]) -> None:
        self.step, self.pictures = step, pictures


@dataclass(eq=False)
class TimestepLoader:
    """T batches of each group, starting at the module's cursor.

    Lightning restores the number of the batch but does not fast-forward a loader: after a restart it would request
    batch k and get batch 0. This loader reads the module's cursor instead. Its length is always T, by which Lightning
    knows the end of the epoch.
    """

    steps: int  # T
    where: Callable[[], tuple[int, int]]  # the group and the module's cursor; T and 0 mean a new group
    read: Callable[[int], tuple[Picture, ...]]  # the pictures of a group
    gave_up: Callable[[], bool] = lambda: False  # whether the group is left out from the step just tried on

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Timestep]:
        group, cursor = self.where()
        pictures = self.read(group)
        if not pictures:
            return
        for step in range(cursor % self.steps, self.steps):
            yield Timestep(step, pictures)
            if self.gave_up():
                return
