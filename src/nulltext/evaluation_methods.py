"""Methods side by side on a benchmark: what each makes of a picture, and of an edit of it.

    generated        guided sampling from noise: nothing of the picture is known (the slides' first column)
    ddim             the pivot's noise, the empty prompt at w
    null_text        the pivot's noise, the learned null embeddings (Mokady et al.)
    negative_prompt  the pivot's noise, the source prompt as null text (Miyake et al., arXiv 2305.16807)
    direct           the pivot's noise, the empty prompt; the source branch is put back on the pivot at each step
                     (Ju et al., arXiv 2310.01506): its reconstruction is the VAE's, and only edits that look at
                     the source branch, the two below that are not plain, differ from ddim's

Each reconstructs the picture and edits it:

    plain            the target prompt takes the source prompt's place, nothing else
    prompt_to_prompt refine, reweight and blend as in PIE-Bench's published runs (arXiv 2310.01506)
    default          what `nulltext.edit` does when it is given no more than the target prompt

The pivot is made once a picture and shared.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.optim import Adam, Optimizer

from nulltext.alignment import has_word, tokenize
from nulltext.artifact import Inversion
from nulltext.backbone import Backbone, TextEmbedding
from nulltext.benchmark_tasks import Task, read_mask, read_picture
from nulltext.ddim import Schedule, ddim_step
from nulltext.editing import edit
from nulltext.editing_options import Edit
from nulltext.errors import UserError
from nulltext.evaluation_results import RECONSTRUCTION, Record, Row, Store
from nulltext.evaluation_settings import InnerOptimizer, Method, Settings, Way
from nulltext.files import write_atomically
from nulltext.inversion import NonFiniteLoss, guided_noise, optimise, start_embedding
from nulltext.inversion_settings import detail_steps
from nulltext.judge import Judge, Reference
from nulltext.optimizers import NormalisedGradient
from nulltext.pivot import ddim_invert
from nulltext.starting_noise import plain_noise

OPTIMIZERS: dict[InnerOptimizer, Callable[..., Optimizer]] = {
    "normalised_gradient": NormalisedGradient,
    "adam": partial(Adam, lr=0.01),
}

BLEND_START = 0.2
"""The share of the steps after which Prompt-to-Prompt's local blend sets in, in the reference."""


@dataclass(frozen=True)
class Cost:
    """Seconds and UNet evaluations (forward and backward passes, counted per latent)."""

    seconds: float = 0.0
    evaluations: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.evaluations + other.evaluations)

    def share(self, number: int) -> Cost:
        """One picture's part of a batch."""
        return Cost(self.seconds / number, self.evaluations / number)


@dataclass(frozen=True)
class Source:
    """A picture with its prompt, and the edits that are asked of it."""

    pixels: Tensor  # (3, H, W) in [0, 1]
    tasks: tuple[Task, ...]

    @property
    def prompt(self) -> str:
        """What it shows."""
        return self.tasks[0].prompt


@dataclass(frozen=True)
class Detail:
    """What the default edits of S sources take their detail from."""

    noise: Tensor | None = None  # (S, 4, h, w), a plain inversion's
    steps: int = 0  # of that inversion
    cost: Cost = Cost()  # of one source


@dataclass(frozen=True)
class Start:
    """What a method gives to edits: where they start, and the source's own walk; S sources at once."""

    method: Method
    noise: Tensor  # (S, 4, h, w)
    null: list[TextEmbedding]  # T entries of S rows, or one that serves all steps
    walk: Tensor  # (T + 1, S, 4, h, w), noisiest first; its end is the reconstruction
    cost: Cost  # of one source, from its pixels to noise and null text
    walk_cost: Cost  # and on to the end of the walk
    detail: Detail


class Evaluator:
    """Runs the methods on sources and scores what they make."""

    def __init__(self, backbone: Backbone, judge: Judge, settings: Settings, store: Store) -> None:
        """Hold the model, the metrics, the choices and the folder; `tell` is told what is being done."""
        self.backbone, self.judge, self.settings, self.store = backbone, judge, settings, store
        self.inversion = settings.model.inversion()
        self.schedule: Schedule = backbone.schedule(self.inversion.steps)
        self.size = settings.model.size or backbone.default_size
        self.problems: dict[str, list[str]] = {}
        self.tell: Callable[[str], None] = lambda doing: None

    @contextmanager
    def measuring(self) -> Iterator[list[Cost]]:
        """Gives a list to which the cost of the block is added at its end."""
        found: list[Cost] = []
        counted = self.backbone.forwards + self.backbone.backwards
        self._wait()
        began = time.perf_counter()
        yield found
        self._wait()
        after = self.backbone.forwards + self.backbone.backwards
        found.append(Cost(time.perf_counter() - began, after - counted))

    def _wait(self) -> None:
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize()

    def embed(self, prompts: str | Sequence[str]) -> TextEmbedding:
        """Prompts for pictures of this run's size."""
        return self.backbone.embed_prompt(prompts, (self.size, self.size))

    @torch.no_grad()
    def run(self, sources: Sequence[Source]) -> list[tuple[Task, Record]]:
        """All methods and ways of editing on a few sources, their pictures saved and scored.

        Returns:
            Each task with its record; a method whose optimisation failed has no rows there, and is named.
        """
        self.problems = {task.name: [] for source in sources for task in source.tasks}
        self.tell("pivot")
        with self.measuring() as made:
            pixels = torch.stack([s.pixels for s in sources]).to(self.backbone.device)
            z_0 = self.backbone.encode_image(pixels * 2 - 1)
            cond = self.embed([s.prompt for s in sources])
            pivot = ddim_invert(
                self.backbone,
                self.schedule,
                z_0,
                cond,
                fixed_point_iterations=self.inversion.fixed_point_iterations,
                pivot_tolerance=self.inversion.pivot_tolerance,
            )
        detail = self._detail(z_0, cond)
        starts = list(self._starts(sources, pivot, cond, detail, made[0].share(len(sources))))
        outputs: dict[str, list[tuple[Method, str, Cost, Tensor]]] = {}
        for start in starts:
            for task, way, cost, picture in self._outputs(start, sources):
                outputs.setdefault(task.name, []).append((start.method, way, cost, picture))
        tasks = [(source, task) for source in sources for task in source.tasks]
        stand_ins = self._stand_ins([task for _, task in tasks])
        self.tell("scores")
        rows = [self._score(t, source, outputs.get(t.name, []), stand_ins.get(t.name)) for source, t in tasks]
        return [(t, Record(found, self.problems[t.name])) for (_, t), found in zip(tasks, rows, strict=True)]

    def _note(self, task: Task, problem: str) -> None:
        """Remember what is wrong with a task, once."""
        said = f"{task.name}: {problem}"
        if said not in self.problems[task.name]:
            self.problems[task.name].append(said)

    def _detail(self, z_0: Tensor, cond: TextEmbedding) -> Detail:
        steps = detail_steps(self.backbone, self.inversion) if "default" in self.settings.editing else 0
        with self.measuring() as made:
            noise = plain_noise(self.backbone, z_0, cond, steps)
        return Detail(noise, steps, made[0].share(len(z_0)))

    def _starts(
        self, sources: Sequence[Source], pivot: Tensor, cond: TextEmbedding, detail: Detail, shared: Cost
    ) -> Iterator[Start]:
        """Where each method starts from, the source's walk under it, and what it took to get there."""
        empty = self.embed("").expand(len(sources))
        for method in self.settings.methods:
            noise, null, own = pivot[0], [cond if method == "negative_prompt" else empty], detail
            walk: Tensor | None = pivot if method == "direct" else None
            self.tell(f"{method} {RECONSTRUCTION}")
            with self.measuring() as made:
                if method == "generated":
                    noise = self._noise([s.tasks[0].name for s in sources], self.settings.seed, pivot[0])
                    own = Detail()  # it knows nothing of the source
                elif method == "null_text":
                    try:
                        null, walk = self._learn(pivot, cond)
                    except NonFiniteLoss as error:
                        for task in (task for source in sources for task in source.tasks):
                            self._note(task, f"null_text: {error}; left out")
                        continue
            reached = made[0].share(len(sources)) + (Cost() if method == "generated" else shared)
            with self.measuring() as walked:
                walk = self._walk(noise, cond, null) if walk is None else walk
            yield Start(method, noise, null, walk, reached, walked[0].share(len(sources)), own)

    @torch.enable_grad()
    def _learn(self, pivot: Tensor, cond: TextEmbedding) -> tuple[list[TextEmbedding], Tensor]:
        """The null text of each step by Algorithm 1, and the walk under them (T + 1, S, 4, h, w)."""
        model = self.settings.model
        rate = {} if model.learning_rate is None else {"lr": model.learning_rate}
        start = start_embedding(self.backbone, cond, self.inversion.start)
        null, walk = [], [pivot[0]]
        for record, sequence in optimise(
            self.backbone,
            self.schedule,
            pivot,
            cond,
            self.inversion,
            partial(OPTIMIZERS[model.optimizer], **rate),
        ):
            self.tell(f"null_text, timestep {len(walk)} of {self.inversion.steps}")
            null.append(start.with_sequence(sequence))
            walk.append(record.z)
        return null, torch.stack(walk)

    def _noise(self, names: Sequence[str], seed: int, like: Tensor) -> Tensor:
        """Noise (S, 4, h, w) that depends on the seed and the pictures' names alone, not on their order."""
        rows = []
        for name in names:
            generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
            rows.append(torch.randn(like.shape[1:], generator=generator))
        return torch.stack(rows).to(like)

    def _outputs(self, start: Start, sources: Sequence[Source]) -> Iterator[tuple[Task, str, Cost, Tensor]]:
        """The reconstruction and the edits of every task under one method."""
        with self.measuring() as made:
            pictures = self._decode(start.walk[-1])
        cost = start.cost + start.walk_cost + made[0].share(len(sources))
        for source, picture in zip(sources, pictures, strict=True):
            for task in source.tasks:
                yield task, RECONSTRUCTION, cost, picture
        if "plain" in self.settings.editing:
            yield from self._plain(start, sources)
        for way in ("prompt_to_prompt", "default"):
            if way in self.settings.editing:
                yield from self._edited(way, start, sources)

    def _plain(self, start: Start, sources: Sequence[Source]) -> Iterator[tuple[Task, str, Cost, Tensor]]:
        """The target prompts under the method's null text, all tasks in one batch."""
        self.tell(f"{start.method} plain")
        tasks = [(i, task) for i, source in enumerate(sources) for task in source.tasks]
        rows = torch.tensor([i for i, _ in tasks], device=start.noise.device)
        with self.measuring() as made:
            target = self.embed([task.target_prompt for _, task in tasks])
            null = [text[rows] for text in start.null]
            pictures = self._decode(self._walk(start.noise[rows], target, null)[-1])
        cost = start.cost + made[0].share(len(tasks))
        for (_, task), picture in zip(tasks, pictures, strict=True):
            yield task, "plain", cost, picture

    def _edited(
        self, way: Way, start: Start, sources: Sequence[Source]
    ) -> Iterator[tuple[Task, str, Cost, Tensor]]:
        """Edits through `nulltext.edit`, one task at a time; a task that it refuses is named in `problems`."""
        for i, source in enumerate(sources):
            inversion = self._inversion(start, i, source)
            for task in source.tasks:
                self.tell(f"{start.method} {way}")
                wanted = self._published(task) if way == "prompt_to_prompt" else Edit(task.target_prompt)
                try:
                    with self.measuring() as made, warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # of prompts that change nothing; the scores say it
                        edited = edit(
                            self.backbone,
                            inversion,
                            wanted,
                            method="ddim" if start.method == "generated" else start.method,
                            walk=start.walk[:, i : i + 1],
                        )
                except UserError as error:
                    self._note(task, f"{start.method} {way}: {error}; left out")
                    continue
                cost = start.cost + start.walk_cost + made[0]
                cost += start.detail.cost if way == "default" else Cost()
                yield task, way, cost, as_saved(edited.results[0].picture)

    def _inversion(self, start: Start, i: int, source: Source) -> Inversion:
        """What a method knows of one source, in the form that `edit` reads."""
        null = start.null if len(start.null) > 1 else start.null * self.inversion.steps
        pooled = null[0].pooled
        return Inversion(
            null_embeddings=torch.stack([text.sequence[i] for text in null]),
            noise=start.noise[i],
            prompt=source.prompt,
            guidance_scale=self.inversion.guidance_scale,
            model=self.backbone.name,
            fingerprint=self.backbone.fingerprint,
            scheduler=self.backbone.scheduler_config,
            timesteps=self.schedule.timesteps.tolist(),
            size=(self.size, self.size),
            fixed_point_iterations=self.inversion.fixed_point_iterations,
            pivot_tolerance=self.inversion.pivot_tolerance,
            pooled=None if pooled is None else pooled[i],
            detail_steps=start.detail.steps,
            detail_noise=None if start.detail.noise is None else start.detail.noise[i],
        )

    def _published(self, task: Task) -> Edit:
        """Prompt-to-Prompt as PIE-Bench's figures were made: w and null text of the inversion throughout."""
        chosen = self.settings.edit
        words = task.blend
        if words is not None:
            prompts = (task.prompt, task.target_prompt)
            for word, prompt in zip(words, prompts, strict=True):
                if not has_word(tokenize(self.backbone.tokenizer, prompt), word):
                    self._note(task, f"its blend word {word!r} is not in {prompt!r}; kept, without a blend")
                    words = None
        return Edit(
            task.target_prompt,
            kind="refine",
            cross_replace=chosen.cross_steps,
            self_replace=chosen.self_steps,
            equalizer={words[1]: chosen.equalizer} if words else {},
            local_blend=list(words) if words and chosen.blend else None,
            threshold=chosen.threshold,
            max_pool=chosen.max_pool,
            start=BLEND_START,
            guidance_scale=self.inversion.guidance_scale,
            null="learned",
            detail_steps=0,
            keep_pixels=False,
        )

    def _walk(self, z: Tensor, text: TextEmbedding, null: Sequence[TextEmbedding]) -> Tensor:
        """The guided walk (T + 1, B, 4, h, w) from noise z (B, 4, h, w), noisiest first."""
        latents, schedule = [z], self.schedule
        for i in range(schedule.steps):
            t, null_i = schedule.timesteps[i], null[i if len(null) > 1 else 0]
            eps = guided_noise(self.backbone, latents[i], t, text, null_i, self.inversion.guidance_scale)
            latents.append(ddim_step(latents[i], eps, schedule.alpha_from[i], schedule.alpha_to[i]))
        return torch.stack(latents)

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) to pictures (B, 3, H, W) in [0, 1], in steps of 1/255 as they are saved."""
        return as_saved(self.backbone.decode_latents(latents))

    def _stand_ins(self, tasks: Sequence[Task]) -> dict[str, Tensor]:
        """Generations from the target prompt, from another noise, for tasks whose true answer is not known."""
        lacking = [task for task in tasks if task.counterfactual is None]
        if not lacking or self.judge.clip is None:
            return {}
        f, channels = self.backbone.vae_scale_factor, self.backbone.latent_channels
        like = torch.empty(1, channels, self.size // f, self.size // f, device=self.backbone.device)
        noise = self._noise([task.name for task in lacking], self.settings.seed + 1, like)
        text = self.embed([task.target_prompt for task in lacking])
        pictures = self._decode(self._walk(noise, text, [self.embed("").expand(len(lacking))])[-1])
        return {task.name: picture for task, picture in zip(lacking, pictures, strict=True)}

    def _score(
        self,
        task: Task,
        source: Source,
        outputs: Sequence[tuple[Method, str, Cost, Tensor]],
        stand_in: Tensor | None,
    ) -> list[Row]:
        """Save a task's pictures and score them."""
        if not outputs:
            return []
        truth = None if task.counterfactual is None else read_picture(task.counterfactual, self.size)
        reference = Reference(
            source=source.pixels,
            prompt=task.prompt,
            target_prompt=task.target_prompt,
            mask=read_mask(task, self.size),
            counterfactual=truth,
            target_picture=stand_in,
        )
        for what, picture in (("source", source.pixels), ("truth", truth)):
            if picture is not None:
                save_picture(picture, self.store.picture(task.name, what))
        for method, way, _, picture in outputs:
            save_picture(picture, self.store.picture(task.name, f"{method}-{way}"))
        scores = self.judge.score(torch.stack([picture for *_, picture in outputs]), reference)
        return [
            Row(task.name, task.edit_type, method, way, cost.seconds, cost.evaluations, score)
            for (method, way, cost, _), score in zip(outputs, scores, strict=True)
        ]


def as_saved(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as pictures in [0, 1], in the steps of 1/255 that a file has."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().cpu() / 255


def save_picture(picture: Tensor, path: Path) -> None:
    """Save (3, H, W) in [0, 1] as a PNG."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    write_atomically(path, lambda p: Image.fromarray(pixels).save(p, "PNG"))
