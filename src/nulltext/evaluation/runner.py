"""Methods side by side on a few pictures: each reconstructs them and makes their edits. No method's name is known here.

The pivot, and the noise that default edits take their detail from, are made once for a picture and used by all methods.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.diffusion import trajectory
from nulltext.editing import edit
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Source, Task, read_mask, read_picture
from nulltext.evaluation.results import RECONSTRUCTION, Record, Row, Store
from nulltext.evaluation.settings import Settings
from nulltext.evaluation.ways import edit_of
from nulltext.inversion.base import InversionMethod, Replay, State, StepRecord, guided_denoiser, plain_noise
from nulltext.inversion.invert import describe, run
from nulltext.inversion.pivot import invert_to_noise
from nulltext.metrics import Reference, Suite
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.pixels import as_saved, from_unit, save_png

T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds and evaluations of the network (forward and backward passes, one per latent), of one picture."""

    seconds: float = 0.0
    evaluations: float = 0.0

    def plus(self, *others: Cost) -> Cost:
        """The sum."""
        return Cost(*map(sum, zip(self, *others, strict=True)))


@dataclass
class Batch:
    """A few sources on their way: what all methods use."""

    sources: Sequence[Source]
    z_0: Tensor  # (S, C, h, w)
    cond: Conditioning  # S rows
    cost: Cost
    made: dict[Hashable, tuple[Any, Cost]] = field(default_factory=dict)  # pivots, and noise for details


class Inverted(NamedTuple):
    """What a method gives to edits."""

    name: str
    method: InversionMethod
    state: State
    replay: Replay  # S rows
    nulls: Cost  # from the picture to noise and null texts
    whole: Cost  # and to the end of the source's trajectory
    detail: Cost


class Output(NamedTuple):
    """A picture that a method made."""

    method: str
    way: str
    cost: Cost
    picture: Tensor  # (3, H, W) in [0, 1], in steps of 1/255


class Runner:
    """Runs the methods on sources and scores what they make; ``tell`` is told what is being done."""

    def __init__(self, model: DiffusionModel, suite: Suite, settings: Settings, store: Store) -> None:
        self.model, self.suite, self.settings, self.store = model, suite, settings, store
        self.side = settings.data.size or model.default_size
        self.size = (self.side, self.side)
        self.problems: dict[str, list[str]] = {}
        self.tell: Callable[[str], None] = lambda doing: None

    def run(self, sources: Sequence[Source]) -> list[tuple[Task, Record]]:
        """All methods and ways of editing on a few sources, their pictures saved and scored.

        Returns:
            Each task with its record; a method that failed has no rows there, and is named.
        """
        tasks = [(source, task) for source in sources for task in source.tasks]
        self.problems = {task.name: [] for _, task in tasks}
        outputs: dict[str, list[Output]] = {task.name: [] for _, task in tasks}
        self.tell("pivot")
        (z_0, cond), cost = self._measured(lambda: self._encoded(sources), len(sources))
        batch = Batch(sources, z_0, cond, cost)
        for name, method in self.settings.methods.items():
            try:
                inverted = self._invert(name, method, batch)
            except UserError as error:
                for _, task in tasks:
                    self._note(task, f"{name}: {error}; left out")
                continue
            for task, output in self._outputs(inverted, sources):
                outputs[task.name].append(output)
        generated = self._generated([task for _, task in tasks])
        self.tell("scores")
        return [
            (t, Record(self._score(t, source, outputs[t.name], generated.get(t.name)), self.problems[t.name]))
            for source, t in tasks
        ]

    def _measured(self, work: Callable[[], T], pictures: int = 1) -> tuple[T, Cost]:
        """What the work gives, and its cost for each of so many pictures."""
        wait = torch.cuda.synchronize if self.model.device.type == "cuda" else lambda device: None
        wait(self.model.device)
        counted, began = self.model.forwards + self.model.backwards, time.perf_counter()
        result = work()
        wait(self.model.device)
        seconds, passes = time.perf_counter() - began, self.model.forwards + self.model.backwards - counted
        return result, Cost(seconds / pictures, passes / pictures)

    def _note(self, task: Task, problem: str) -> None:
        """Remembers what is wrong with a task, once."""
        line = f"{task.name}: {problem}"
        if line not in self.problems[task.name]:
            self.problems[task.name].append(line)

    def _encoded(self, sources: Sequence[Source]) -> tuple[Tensor, Conditioning]:
        z_0 = self.model.encode(torch.stack([s.pixels for s in sources]).to(self.model.device))
        return z_0, self.model.embed([s.prompt for s in sources], self.size)

    def _invert(self, name: str, method: InversionMethod, batch: Batch) -> Inverted:
        """Inverts the sources with one method."""
        self.tell(f"{name} {RECONSTRUCTION}")
        model, count, sees = self.model, len(batch.sources), getattr(method, "sees_picture", True)
        if sees:
            pivot, cost = self._pivot(method, batch)
        else:
            noise = self._noise([source.tasks[0].name for source in batch.sources], self.settings.seed)
            pivot, cost = noise.expand(method.steps + 1, *noise.shape), Cost()
        bare = replace(method, detail_steps=0)  # detail is not a part of a reconstruction's cost
        state, begun = self._measured(lambda: bare.begin(model, batch.z_0, batch.cond, pivot), count)
        before = [null.detach().clone() for null in state.null]

        def tell(record: StepRecord) -> None:
            self.tell(f"{name}, timestep {record.step + 1} of {method.steps}")

        replay, stepped = self._measured(lambda: run(method, model, state, tell), count)
        whole = cost.plus(begun, stepped)
        learned = any(not torch.equal(a, b) for a, b in zip(before, state.null, strict=True))
        state.detail_noise, detail = self._detail(method, batch) if sees else (None, Cost())
        return Inverted(name, method, state, replay, whole if learned else cost.plus(begun), whole, detail)

    def _pivot(self, method: InversionMethod, batch: Batch) -> tuple[Tensor, Cost]:
        """The pivot (T + 1, S, C, h, w) and its cost; methods with the same settings have the same."""
        settling = method.fixed_point_iterations, method.pivot_tolerance
        key = (method.steps, method.start_sigma, *settling)
        if key not in batch.made:
            schedule = method.schedule(self.model, self.size)
            pivot, cost = self._measured(
                lambda: invert_to_noise(self.model, schedule, batch.z_0, batch.cond, *settling),
                len(batch.sources),
            )
            batch.made[key] = pivot, batch.cost.plus(cost)
        return batch.made[key]

    def _detail(self, method: InversionMethod, batch: Batch) -> tuple[Tensor | None, Cost]:
        """The noise that default edits take their detail from, and its cost."""
        used = any(way not in ("plain", "prompt_to_prompt") for way in self.settings.editing)
        key = (method.detail_steps_for(self.model) if used else 0, method.start_sigma)
        if key not in batch.made:
            batch.made[key] = self._measured(
                lambda: plain_noise(self.model, batch.z_0, batch.cond, *key), len(batch.sources)
            )
        return batch.made[key]

    def _noise(self, names: Sequence[str], seed: int) -> Tensor:
        """Noise (S, C, h, w) that depends on the seed and the pictures' names alone, not on their order."""
        rows = []
        for name in names:
            generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
            rows.append(torch.randn(self.model.latent_shape(self.size), generator=generator))
        return torch.stack(rows).to(self.model.device)

    def _outputs(self, inverted: Inverted, sources: Sequence[Source]) -> Iterator[tuple[Task, Output]]:
        """The reconstruction and the edits of every task under one method."""
        end = inverted.replay.trajectory[-1]
        pictures, cost = self._measured(lambda: as_saved(self.model.decode(end)), len(sources))
        for source, picture in zip(sources, pictures, strict=True):
            for task in source.tasks:
                yield task, Output(inverted.name, RECONSTRUCTION, inverted.whole.plus(cost), picture)
        for i, source in enumerate(sources):
            yield from self._edits(inverted, i, source)

    def _edits(self, start: Inverted, i: int, source: Source) -> Iterator[tuple[Task, Output]]:
        """The edits of source i; one that cannot be made is named."""
        picture = Picture(source.pixels, source.prompt, source.tasks[0].name, placement=source.placement)
        inversion = describe(self.model, start.method, start.state, picture, i, float("nan"))
        nulls = [null[i : i + 1] for null in start.replay.null_texts]
        replay = Replay(nulls, start.replay.trajectory[:, i : i + 1])
        targets = [task for task in source.tasks if task.target_prompt is not None]
        for task, way in product(targets, self.settings.editing):
            self.tell(f"{start.name} {way}")
            try:
                wanted = edit_of(
                    task,
                    way,
                    start.method.guidance_scale,
                    self.settings.edit,
                    self.model.tokenizer,
                    partial(self._note, task),
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the scores say what changes nothing
                    edited, cost = self._measured(partial(edit, self.model, inversion, wanted, method=replay))
            except UserError as error:
                self._note(task, f"{start.name} {way}: {error}; left out")
                continue
            # the source's trajectory and detail count only where they are used
            before = start.whole if wanted.kind != "plain" or wanted.masked else start.nulls
            detail = start.detail if wanted.detail_steps is None else Cost()
            yield (
                task,
                Output(start.name, way, before.plus(detail, cost), as_saved(edited.results[0].picture)),
            )

    def _generated(self, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Generations from the target prompts, from another noise, for tasks whose true picture is not known."""
        wanted = [task for task in tasks if task.truth is None and task.target_prompt is not None]
        if not wanted or not any("target" in metric.requires for metric in self.suite.metrics):
            return {}
        method = next(iter(self.settings.methods.values()))
        noise = self._noise([task.name for task in wanted], self.settings.seed + 1)
        text = self.model.embed([str(task.target_prompt) for task in wanted], self.size)
        null = self.model.embed("", self.size).expand(len(wanted))
        schedule = self.model.schedule(method.steps, self.size)
        denoise = guided_denoiser(self.model, schedule, text, [null], method.guidance_scale)
        with torch.no_grad():
            pictures = as_saved(self.model.decode(trajectory(denoise, schedule, noise)[-1]))
        return {task.name: picture for task, picture in zip(wanted, pictures, strict=True)}

    def _score(
        self, task: Task, source: Source, outputs: Sequence[Output], generated: Tensor | None
    ) -> list[Row]:
        """Saves a task's pictures and scores them."""
        if not outputs:
            return []
        truth = None if task.truth is None else as_saved(read_picture(task.truth, self.side)[0])
        mask = read_mask(task, self.side, source.placement)
        pixels = as_saved(source.pixels)
        pictures = {"source": pixels, "truth": truth} | {f"{o.method}-{o.way}": o.picture for o in outputs}
        for what, picture in pictures.items():
            if picture is not None:
                save_png(self.store.picture(task.name, what), from_unit(picture))
        reference = Reference(pixels, task.prompt, task.target_prompt, mask, truth, generated)
        scores = self.suite.score(torch.stack([output.picture for output in outputs]), reference)
        return [
            Row(task.name, task.edit_type, o.method, o.way, o.cost.seconds, o.cost.evaluations, score)
            for o, score in zip(outputs, scores, strict=True)
        ]
