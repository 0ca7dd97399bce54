"""Methods side by side on a few pictures: each reconstructs them and makes their edits. No method's name is known here.

The pivot, and the noise that default edits take their detail from, are made once for a picture and used by all methods.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nulltext.data.picture import Picture
from nulltext.diffusion import trajectory
from nulltext.editing import Edit, edit
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks.base import Task, read_mask, read_picture
from nulltext.evaluation.results.rows import RECONSTRUCTION, Cost, Record, Row
from nulltext.evaluation.results.store import Store
from nulltext.evaluation.settings import Settings
from nulltext.evaluation.sources import Source
from nulltext.evaluation.ways import Editing
from nulltext.inversion.base import InversionMethod, Replay, State, guided_denoiser, plain_noise
from nulltext.inversion.invert import describe, run
from nulltext.inversion.pivot import invert_to_noise
from nulltext.metrics import Reference, Suite
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning
from nulltext.pixels import as_saved, save_png


@dataclass
class Batch:
    """A few sources on their way: what all methods use."""

    sources: Sequence[Source]
    z_0: Tensor  # (S, C, h, w)
    cond: Conditioning  # S rows
    cost: Cost  # of one source so far
    pivots: dict[tuple[int, float, int, float], tuple[Tensor, Cost]] = field(default_factory=dict)
    details: dict[int, tuple[Tensor | None, Cost]] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What a method gives to edits; costs are of one source."""

    name: str
    method: InversionMethod
    state: State
    replay: Replay  # S rows
    noise_and_nulls: Cost  # from the picture to noise and null texts
    whole: Cost  # and to the end of the source's trajectory
    detail: Cost


@dataclass(frozen=True)
class Output:
    """A picture that a method made."""

    method: str
    way: str
    cost: Cost
    picture: Tensor  # (3, H, W) in [0, 1], in steps of 1/255


class Runner:
    """Runs the methods on sources and scores what they make.

    Attributes:
        tell: Is told what is being done.
    """

    def __init__(self, model: DiffusionModel, suite: Suite, settings: Settings, store: Store) -> None:
        """Hold the model, the metrics, the choices and the folder."""
        self.model, self.suite, self.settings, self.store = model, suite, settings, store
        self.side = settings.data.size or model.default_size
        self.size = (self.side, self.side)
        self.problems: dict[str, list[str]] = {}
        self.tell: Callable[[str], None] = lambda doing: None

    @contextmanager
    def measuring(self) -> Iterator[list[Cost]]:
        """Gives a list to which the cost of the block is added at its end."""
        found: list[Cost] = []
        counted = self.model.forwards + self.model.backwards
        self._wait()
        began = time.perf_counter()
        yield found
        self._wait()
        found.append(Cost(time.perf_counter() - began, self.model.forwards + self.model.backwards - counted))

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def run(self, sources: Sequence[Source]) -> list[tuple[Task, Record]]:
        """All methods and ways of editing on a few sources, their pictures saved and scored.

        Returns:
            Each task with its record; a method that failed has no rows there, and is named.
        """
        tasks = [(source, task) for source in sources for task in source.tasks]
        self.problems = {task.name: [] for _, task in tasks}
        self.tell("pivot")
        with self.measuring() as made:
            z_0 = self.model.encode(torch.stack([s.pixels for s in sources]).to(self.model.device))
            cond = self.model.embed([s.prompt for s in sources], self.size)
        batch = Batch(sources, z_0, cond, made[0].each(len(sources)))
        outputs: dict[str, list[Output]] = {task.name: [] for _, task in tasks}
        for name, method in self.settings.methods.items():
            try:
                start = self._start(name, method, batch)
            except UserError as error:
                for _, task in tasks:
                    self._note(task, f"{name}: {error}; left out")
                continue
            for task, output in self._outputs(start, sources):
                outputs[task.name].append(output)
        generated = self._generated([task for _, task in tasks])
        self.tell("scores")
        return [
            (t, Record(self._score(t, source, outputs[t.name], generated.get(t.name)), self.problems[t.name]))
            for source, t in tasks
        ]

    def _note(self, task: Task, problem: str) -> None:
        """Remember what is wrong with a task, once."""
        line = f"{task.name}: {problem}"
        if line not in self.problems[task.name]:
            self.problems[task.name].append(line)

    def _start(self, name: str, method: InversionMethod, batch: Batch) -> Start:
        """Inverts the sources with one method."""
        count, sees = len(batch.sources), getattr(method, "sees_picture", True)
        self.tell(f"{name} {RECONSTRUCTION}")
        pivot, cost = self._pivot(method, batch) if sees else (self._noise_pivot(method, batch), Cost())
        with self.measuring() as begun:  # without detail, which is not a part of a reconstruction's cost
            state = replace(method, detail_steps=0).begin(self.model, batch.z_0, batch.cond, pivot)
        before = [null.detach().clone() for null in state.null]
        with self.measuring() as stepped:
            replay = run(
                method,
                self.model,
                state,
                lambda r: self.tell(f"{name}, timestep {r.step + 1} of {method.steps}"),
            )
        learned = any(not torch.equal(a, b) for a, b in zip(before, state.null, strict=True))
        steps = stepped[0].each(count)
        reached = cost + begun[0].each(count)
        state.detail_noise, detail = self._detail(method, batch) if sees else (None, Cost())
        nulls = reached + steps if learned else reached
        return Start(name, method, state, replay, nulls, reached + steps, detail)

    def _pivot(self, method: InversionMethod, batch: Batch) -> tuple[Tensor, Cost]:
        """The pivot (T + 1, S, C, h, w) and its cost; methods with the same settings have the same."""
        key = (method.steps, method.start_sigma, method.fixed_point_iterations, method.pivot_tolerance)
        if key not in batch.pivots:
            with self.measuring() as made:
                schedule = method.schedule(self.model, self.size)
                pivot = invert_to_noise(self.model, schedule, batch.z_0, batch.cond, *key[2:])
            batch.pivots[key] = pivot, batch.cost + made[0].each(len(batch.sources))
        return batch.pivots[key]

    def _noise_pivot(self, method: InversionMethod, batch: Batch) -> Tensor:
        """Noise in the place of a pivot, for a method that does not see the picture."""
        noise = self._noise([source.tasks[0].name for source in batch.sources], self.settings.seed)
        return noise.expand(method.steps + 1, *noise.shape)

    def _detail(self, method: InversionMethod, batch: Batch) -> tuple[Tensor | None, Cost]:
        """The noise that default edits take their detail from, and its cost."""
        steps = method.detail_steps_for(self.model) if self._uses_detail else 0
        if steps not in batch.details:
            with self.measuring() as made:
                noise = plain_noise(self.model, batch.z_0, batch.cond, steps, method.start_sigma)
            batch.details[steps] = noise, made[0].each(len(batch.sources))
        return batch.details[steps]

    @property
    def _uses_detail(self) -> bool:
        return any(way not in ("plain", "prompt_to_prompt") for way in self.settings.editing)

    def _noise(self, names: Sequence[str], seed: int) -> Tensor:
        """Noise (S, C, h, w) that depends on the seed and the pictures' names alone, not on their order."""
        rows = []
        for name in names:
            generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
            rows.append(torch.randn(self.model.latent_shape(self.size), generator=generator))
        return torch.stack(rows).to(self.model.device)

    def _outputs(self, start: Start, sources: Sequence[Source]) -> Iterator[tuple[Task, Output]]:
        """The reconstruction and the edits of every task under one method."""
        with self.measuring() as made:
            pictures = as_saved(self.model.decode(start.replay.trajectory[-1]))
        cost = start.whole + made[0].each(len(sources))
        for source, picture in zip(sources, pictures, strict=True):
            for task in source.tasks:
                yield task, Output(start.name, RECONSTRUCTION, cost, picture)
        for i, source in enumerate(sources):
            yield from self._edits(start, i, source)

    def _edits(self, start: Start, i: int, source: Source) -> Iterator[tuple[Task, Output]]:
        """The edits of source i; one that cannot be made is named."""
        method = start.method
        picture = Picture(source.pixels, source.prompt, source.tasks[0].name, placement=source.placement)
        inversion = describe(self.model, method, start.state, picture, i, float("nan"))
        nulls = [null[i : i + 1] for null in start.replay.null_texts]
        replay = Replay(nulls, start.replay.trajectory[:, i : i + 1])
        editing = Editing(self.model.tokenizer, self.settings.edit, method.guidance_scale, self._note)
        wanted = [
            (t, way) for t in source.tasks if t.target_prompt is not None for way in self.settings.editing
        ]
        for task, way in wanted:
            self.tell(f"{start.name} {way}")
            try:
                edit_of_task = editing.edit(way, task)
                with self.measuring() as made, warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the scores say what changes nothing
                    result = edit(self.model, inversion, edit_of_task, method=replay).results[0]
            except UserError as error:
                self._note(task, f"{start.name} {way}: {error}; left out")
                continue
            cost = _before(start, edit_of_task) + made[0]
            yield task, Output(start.name, way, cost, as_saved(result.picture))

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
        reference = Reference(pixels, task.prompt, task.target_prompt, mask, truth, generated)
        for what, picture in (("source", pixels), ("truth", truth)):
            if picture is not None:
                save_png(self.store.picture(task.name, what), picture * 2 - 1)
        for output in outputs:
            save_png(self.store.picture(task.name, f"{output.method}-{output.way}"), output.picture * 2 - 1)
        scores = self.suite.score(torch.stack([output.picture for output in outputs]), reference)
        return [
            Row(task.name, task.edit_type, o.method, o.way, o.cost.seconds, o.cost.evaluations, score)
            for o, score in zip(outputs, scores, strict=True)
        ]


def _before(start: Start, wanted: Edit) -> Cost:
    """What an edit costs before it starts: the source's trajectory and detail only where it uses them."""
    cost = start.whole if wanted.kind != "plain" or wanted.masked else start.noise_and_nulls
    return cost + start.detail if wanted.detail_steps is None else cost
