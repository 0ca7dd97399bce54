"""A benchmark from its folder to the rows of its table, continued where it was stopped."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nulltext.backbone import Backbone, check_model
from nulltext.benchmark_tasks import Benchmark, Task, read_mask, read_picture
from nulltext.benchmarks import read_benchmark
from nulltext.errors import UserError
from nulltext.evaluation_methods import Evaluator, Source
from nulltext.evaluation_results import Record, Results, Store
from nulltext.evaluation_settings import DataSettings, ModelSettings, Settings
from nulltext.judge import Judge


def open_benchmark(data: DataSettings, output: Path) -> Benchmark:
    """Read the benchmark that the settings name; the farmyard's is drawn first where it is not there.

    Raises:
        UserError: No folder is named, or nothing in it can be used.
    """
    if data.benchmark == "farmyard":
        from nulltext.farmyard.recipe.benchmark import write_farmyard_benchmark

        benchmark = read_benchmark("pie_bench", write_farmyard_benchmark(data.folder or output / "benchmark"))
        benchmark.name = "farmyard"
        return benchmark
    if data.folder is None:
        raise UserError(f"where is the benchmark? give {data.benchmark}'s folder with --data.folder")
    return read_benchmark(data.benchmark, data.folder, data.mapping, data.columns)


def choices_of(settings: Settings, benchmark: Benchmark, backbone: Backbone, judge: Judge) -> dict[str, Any]:
    """Everything that the numbers depend on, as plain values; what only says how many are measured is left out."""
    model = asdict(settings.model)
    versions = {
        name: _version(name) for name in ("torch", "diffusers", "transformers", "torchmetrics", "nulltext")
    }
    return {
        "benchmark": benchmark.name,
        "benchmark_digest": _digest(benchmark),
        "model": {
            **model,
            "size": settings.model.size or backbone.default_size,
            "device": str(backbone.device),
        },
        "fingerprint": backbone.fingerprint,
        "edit": asdict(settings.edit),
        "editing": list(settings.editing),
        "methods": list(settings.methods),
        "clip": judge.clip.name if judge.clip else None,
        "dino": judge.structure.name if judge.structure else None,
        "lpips": judge.perceptual.name if judge.perceptual else None,
        "clip_similarities": "clip_image_* and clip_text_* are raw cosines; clip_whole and clip_edited x100",
        "std": "of the sample (n - 1)",
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "versions": versions,
        "hardware": _hardware(backbone),
    }


def _digest(benchmark: Benchmark) -> str:
    """A short hash of what is asked, so that a changed mapping file is not taken for the old one."""
    said = repr(
        [(t.name, t.prompt, t.target_prompt, t.edit_type, t.blend, t.mask_runs) for t in benchmark.tasks]
    )
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _hardware(backbone: Backbone) -> str:
    if backbone.device.type == "cuda":
        return torch.cuda.get_device_name(backbone.device)
    return f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads"


def gather_sources(tasks: Sequence[Task], size: int, problems: list[str]) -> list[Source]:
    """Tasks by picture and prompt, in order of first appearance; unreadable pictures and masks are skipped, named."""
    together: dict[tuple[Any, str], list[Task]] = {}
    for task in tasks:
        together.setdefault((task.image, task.prompt), []).append(task)
    sources = []
    for (image, _), members in together.items():
        try:
            pixels = read_picture(image, size)
        except ValueError as error:
            problems += [f"{task.name}: {error}; skipped" for task in members]
            continue
        usable = [task for task in members if _usable(task, size, problems)]
        if usable:
            sources.append(Source(pixels, tuple(usable)))
    return sources


def _usable(task: Task, size: int, problems: list[str]) -> bool:
    try:
        read_mask(task, size)
        if task.counterfactual is not None:
            read_picture(task.counterfactual, size)
    except ValueError as error:
        problems.append(f"{task.name}: {error}; skipped")
        return False
    return True


def evaluate(
    settings: Settings,
    backbone: Backbone | None = None,
    judge: Judge | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, doing: None,
) -> tuple[Results, Store]:
    """Run a benchmark, or continue one: edits whose record stands in the output folder are not done again.

    Sources are worked in batches that depend only on the benchmark, so that a restart repeats the batch in which
    it was stopped as it was.

    Args:
        settings: All choices.
        backbone: The model, where it is loaded already.
        judge: The metrics, where they are loaded already.
        progress: Called with edits done, all edits, and what is being done with the next ones.

    Returns:
        The rows of all edits, and the folder with their pictures.

    Raises:
        UserError: Nothing to measure, wrong choices, or an output folder begun with others.
    """
    if backbone is None:
        find_device(settings.model.device)
        if settings.data.benchmark == "farmyard":  # before anything is drawn
            check_model(settings.model.pretrained, variant=settings.model.variant)
    benchmark = open_benchmark(settings.data, settings.output)
    tasks = benchmark.limited(settings.data.limit, settings.data.edit_types)
    backbone = backbone or load_backbone(settings.model)
    names = settings.metrics
    judge = judge or Judge.load(names.clip, names.dino, names.lpips, backbone.device)
    choices = choices_of(settings, benchmark, backbone, judge)
    store = Store(settings.output, choices)
    evaluator = Evaluator(backbone, judge, settings, store)
    problems = list(benchmark.problems)
    sources = gather_sources(tasks, evaluator.size, problems)
    if not sources:
        raise UserError(f"none of {len(tasks)} edits can be used; the first: {problems[0]}")
    total = sum(len(source.tasks) for source in sources)
    done: dict[str, Record] = {}
    evaluator.tell = lambda doing: progress(len(done), total, doing)
    groups = [sources[i : i + settings.batch_size] for i in range(0, len(sources), settings.batch_size)]
    for group in groups:
        names_here = [task.name for source in group for task in source.tasks]
        found = {name: record for name in names_here if (record := store.record(name)) is not None}
        if len(found) < len(names_here):
            found = {}
            for task, record in evaluator.run(group):
                store.add(task.name, record)
                found[task.name] = record
        done |= found
    progress(len(done), total, "done")
    records = [done[task.name] for source in sources for task in source.tasks]
    rows = [row for record in records for row in record.rows]
    problems += [problem for record in records for problem in record.problems]
    return Results(rows, choices, judge.absent, problems), store


def find_device(name: str) -> str:
    """The device of that name; `auto` is the first GPU, or the CPU.

    Raises:
        UserError: There is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--model.device {name} is not to be had here ({reason}); try auto or cpu") from None
    return name


def load_backbone(model: ModelSettings) -> Backbone:
    """The model that the settings name, on the device that they name.

    Raises:
        UserError: There is no such device, no such model, or it makes no pictures of that size.
    """
    backbone = Backbone.from_pretrained(
        model.pretrained, precision=model.precision, device=find_device(model.device), variant=model.variant
    )
    if model.size is not None and (model.size < 1 or model.size % backbone.vae_scale_factor):
        f = backbone.vae_scale_factor
        raise UserError(
            f"--model.size is {model.size}; give a multiple of {f}, such as {backbone.default_size}"
        )
    return backbone
