"""Methods side by side on a few pictures: each reconstructs them and makes their edits. No method's name is known here.

The pivot is made once for a picture and used by all methods.
"""

import time
import warnings
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.diffusion import trajectory
from nulltext.editing import edit
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Source, Task, read_mask, read_picture
from nulltext.evaluation.benchmarks.finished import Made, read_finished
from nulltext.evaluation.protocol import commit
from nulltext.evaluation.results import COSTS, RECONSTRUCTION, Record, RoundTrip, Row, Store
from nulltext.evaluation.settings import Settings
from nulltext.evaluation.ways import edit_of, take_back
from nulltext.inversion.base import InversionMethod, Replay, StepRecord, guided_denoiser
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import describe, run
from nulltext.metrics import Reference, Suite, psnr
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.pixels import as_saved, from_unit, save_png

T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds and evaluations of the network (forward and backward passes, one per latent), of one picture."""

    seconds: float = 0.0
    evaluations: float = 0.0

    def plus(self, *others: Self) -> Self:
        """The sum."""
        return type(self)(*map(sum, zip(self, *others, strict=True)))

    def of(self, inversion: Inversion) -> dict[str, float]:
        """The costs of an output by the names of their columns."""
        values = (*self, inversion.nbytes)
        return {column.name: value for column, value in zip(COSTS, values, strict=True)}


@dataclass
class Batch:
    """A few sources on their way: what all methods use."""

    sources: Sequence[Source]
    z_0: Tensor  # (S, C, h, w)
    cond: Conditioning  # S rows
    cost: Cost
    made: dict[Hashable, tuple[Any, Cost]] = field(default_factory=dict)  # pivots


class Runner:
    """Runs the methods on sources and scores what they make; ``tell`` is told what is being done.

    ``side`` is that of the pictures, in pixels; ``finished`` are those of other tools, by their column and the task's
    name. Without methods there needs to be no model.
    """

    model: DiffusionModel

    def __init__(
        self,
        model: DiffusionModel | None,
        suite: Suite,
        settings: Settings,
        store: Store,
        side: int,
        finished: Mapping[str, Mapping[str, Sequence[Made]]] | None = None,
    ) -> None:
        if model is not None:
            self.model = model
        self.suite, self.settings, self.store, self.finished = suite, settings, store, finished or {}
        self.side, self.size = side, (side, side)
        self.problems: dict[str, list[str]] = {}  # by the task's name, as are the outputs
        self.outputs: dict[str, list[tuple[Row, Tensor]]] = {}
        self.tell: Callable[[str], None] = lambda doing: None

    def run(self, sources: Sequence[Source]) -> list[tuple[Task, Record]]:
        """All methods and ways of editing on a few sources, their pictures saved and scored.

        Returns:
            Each task with its record; a method that failed has no rows there, and is named.
        """
        tasks = [(source, task) for source in sources for task in source.tasks]
        self.problems = {task.name: [] for _, task in tasks}
        self.outputs = {task.name: [] for _, task in tasks}
        generated = self._make(sources) if self.settings.methods else {}
        self.tell("scores")
        for source, task in tasks:
            self._take_finished(source, task)
        return [(task, self._record(task, source, generated.get(task.name))) for source, task in tasks]

    def _make(self, sources: Sequence[Source]) -> dict[str, Tensor]:
        """The outputs of our methods; gives generations from the target prompts, by the task's name."""
        self.tell("pivot")
        pixels = torch.stack([source.pixels for source in sources]).to(self.model.device)
        prompts = [source.tasks[0].prompt for source in sources]
        (z_0, cond), cost = self._measured(
            lambda: (self.model.encode(pixels), self.model.embed(prompts, self.size)), len(sources)
        )
        batch, tasks = Batch(sources, z_0, cond, cost), [task for source in sources for task in source.tasks]
        for name, method in self.settings.methods.items():
            try:
                self._apply(name, method, batch)
            except UserError as error:
                for task in tasks:
                    self._note(task, f"{name}: {error}; left out")
        return self._generated(tasks)

    def _take_finished(self, source: Source, task: Task) -> None:
        """What other tools finished of a task; what is missing is named."""
        for name, found in self.finished.items():
            if task.name not in found and task.target_prompt is not None:
                self._note(task, f"{name}: no finished picture; left out")
            for made in found.get(task.name, ()):
                try:
                    picture = as_saved(read_finished(made.path, source, self.side))
                except UserError as error:
                    self._note(task, f"{name}: {error}; left out")
                    continue
                self._put(task, f"{name}_{made.method}".strip("_"), made.way, picture, {})

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

    def _apply(self, name: str, method: InversionMethod, batch: Batch) -> None:
        """Inverts the sources with one method, reconstructs them, and makes their edits."""
        self.tell(f"{name} {RECONSTRUCTION}")
        model, count, sees = self.model, len(batch.sources), getattr(method, "sees_picture", True)
        if sees:
            pivot, cost = self._pivot(method, batch)
        else:
            noise = self._noise([source.tasks[0].name for source in batch.sources], self.settings.seed)
            pivot, cost = noise.expand(method.steps + 1, *noise.shape), Cost()
        state, begun = self._measured(lambda: method.begin(model, batch.z_0, batch.cond, pivot), count)
        before = [null.detach().clone() for null in state.null]

        def tell(record: StepRecord) -> None:
            self.tell(f"{name}, timestep {record.step + 1} of {method.steps}")

        replay, stepped = self._measured(lambda: run(method, model, state, tell), count)
        nulls = whole = cost.plus(begun, stepped)  # to null texts, and to the end of the trajectory
        if replay.added is None and all(map(torch.equal, before, state.null)):  # an edit needs no step of it
            nulls = cost.plus(begun)
        pictures, decoding = self._measured(lambda: as_saved(model.decode(replay.trajectory[-1])), count)
        for i, source in enumerate(batch.sources):
            first = source.tasks[0]
            picture = Picture(source.pixels, first.prompt, first.name, placement=source.placement)
            inversion = describe(model, method, state, picture, i, float("nan"))
            for task in source.tasks:
                costs = whole.plus(decoding).of(inversion)
                self._put(task, name, RECONSTRUCTION, pictures[i], costs)
                for way in self.settings.editing if task.target_prompt is not None else ():
                    self._edit((source, task), name, way, inversion, replay.row(i), (nulls, whole))

    def _put(self, task: Task, method: str, way: str, picture: Tensor, known: dict[str, float]) -> None:
        """Saves an output (3, H, W) in [0, 1], in steps of 1/255, and keeps it to be scored beside what is known."""
        save_png(self.store.picture(task.name, f"{method}-{way}"), from_unit(picture))
        row = Row(task.name, task.edit_type, method, way, known, task.prompt, task.target_prompt)
        self.outputs[task.name].append((row, picture))

    def _once(self, batch: Batch, key: Hashable, work: Callable[[], T]) -> tuple[T, Cost]:
        """What methods with the same settings have in common, and its cost."""
        if key not in batch.made:
            batch.made[key] = self._measured(work, len(batch.sources))
        return batch.made[key]

    def _pivot(self, method: InversionMethod, batch: Batch) -> tuple[Tensor, Cost]:
        """The pivot (T + 1, S, C, h, w) and its cost from the picture on."""
        key = (type(method).make_pivot, method.steps, method.start_sigma, method.fixed_point_iterations)
        pivot, cost = self._once(
            batch,
            (*key, method.pivot_tolerance, getattr(method, "noise_seed", None)),
            lambda: method.make_pivot(
                self.model, method.schedule(self.model, self.size), batch.z_0, batch.cond
            ),
        )
        return pivot, batch.cost.plus(cost)

    def _noise(self, names: Sequence[str], seed: int) -> Tensor:
        """Noise (S, C, h, w) that depends on the seed and the pictures' names alone, not on their order."""
        rows = []
        for name in names:
            generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
            rows.append(torch.randn(self.model.latent_shape(self.size), generator=generator))
        return torch.stack(rows).to(self.model.device)

    def _edit(
        self,
        of: tuple[Source, Task],
        name: str,
        way: str,
        inversion: Inversion,
        replay: Replay,
        costs: tuple[Cost, Cost],
    ) -> None:
        """One edit under one method; one that cannot be made is named."""
        source, task = of
        self.tell(f"{name} {way}")
        complain = partial(self._note, task)
        try:
            wanted = edit_of(
                task, way, inversion.guidance_scale, self.settings.edit, self.model.tokenizer, complain
            )
            with warnings.catch_warnings(action="ignore"):  # the scores say what changes nothing
                edited, cost = self._measured(lambda: edit(self.model, inversion, wanted, method=replay))
        except UserError as error:
            complain(f"{name} {way}: {error}; left out")
            return
        nulls, whole = costs  # the source's trajectory counts only where it is used
        before = whole if wanted.kind != "plain" or wanted.masked else nulls
        picture = as_saved(edited.results[0].picture)
        known, method = before.plus(cost).of(inversion), self.settings.methods[name]
        if self.settings.round_trip and getattr(method, "sees_picture", True):
            self.tell(f"{name} {way} and back")
            times = int(self.settings.round_trip)
            back = take_back(self.model, task, method, way, picture, self.settings.edit, times)
            save_png(self.store.picture(task.name, f"{name}-{way}-back"), from_unit(back))
            known[RoundTrip.name] = float(psnr(back[None], as_saved(source.pixels)[None]))
        self._put(task, name, way, picture, known)

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

    def _record(self, task: Task, source: Source, generated: Tensor | None) -> Record:
        """Scores a task's outputs, its source, true picture and mask saved beside them."""
        outputs, problems = self.outputs[task.name], self.problems[task.name]
        if not outputs:
            return Record([], problems, commit())
        truth = None if task.truth is None else as_saved(read_picture(task.truth, self.side)[0])
        mask = read_mask(task, self.side, source.placement)
        pixels = as_saved(source.pixels)
        shown = None if mask is None else mask.expand(3, -1, -1)
        for what, picture in (("source", pixels), ("truth", truth), ("mask", shown)):
            if picture is not None:
                save_png(self.store.picture(task.name, what), from_unit(picture))
        reference = Reference(pixels, task.prompt, task.target_prompt, mask, truth, generated)
        scores = self.suite.score(torch.stack([picture for _, picture in outputs]), reference)
        pairs = zip(outputs, scores, strict=True)
        rows = [replace(row, scores=row.scores | score) for (row, _), score in pairs]
        return Record(rows, problems, commit())
