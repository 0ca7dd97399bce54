"""A benchmark from its folder to the rows of its table, continued where it was stopped."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from nulltext.errors import UserError
from nulltext.evaluation.benchmarks import Benchmark, open_benchmark
from nulltext.evaluation.results.rows import Record, Results
from nulltext.evaluation.results.store import Store
from nulltext.evaluation.runner import Runner
from nulltext.evaluation.settings import Settings
from nulltext.evaluation.sources import gather_sources
from nulltext.evaluation.ways import check_way
from nulltext.metrics import MetricOptions, Suite, load_metrics
from nulltext.models.base import DiffusionModel
from nulltext.models.device import find_device, find_precision
from nulltext.models.loading import check_model, load_model
from nulltext.models.shipped import PRETRAINED, SHIPPED, check_shipped

PACKAGES = ("torch", "diffusers", "transformers", "torchmetrics", "nulltext")


def check(settings: Settings) -> None:
    """Checks what can be checked before anything is read, drawn or loaded.

    Raises:
        UserError: No such device, precision, way of editing, or model.
    """
    find_device(settings.device)
    find_precision(settings.precision)
    for way in settings.editing:
        check_way(way)
    loading = settings.loading
    check_model(loading.pretrained, loading.variant, loading.revision, loading.family)


def evaluate(
    settings: Settings,
    model: DiffusionModel | None = None,
    suite: Suite | None = None,
    benchmark: Benchmark | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, doing: None,
) -> tuple[Results, Store]:
    """Runs a benchmark, or continues one: edits whose record is in the output folder are not done again.

    Sources are worked in batches that depend only on the benchmark, so that a restart repeats the batch in which it
    was stopped as it was.

    Args:
        settings: All choices.
        model: The model, where it is loaded already.
        suite: The metrics, where they are loaded already.
        benchmark: The benchmark, where it is read already.
        progress: Is told the edits done, all edits (0 where that is not known yet), and what is being done.

    Returns:
        The rows of all edits, and the folder with their pictures.

    Raises:
        UserError: Nothing to measure, wrong choices, or an output folder begun with others.
    """
    if model is None:
        check(settings)
    benchmark = benchmark or open_benchmark(settings.data)
    tasks = benchmark.limited(settings.data.limit, settings.data.edit_types)
    progress(0, 0, "loading the model")
    if model is None:
        loading = settings.loading
        model = load_model(loading.pretrained, loading, settings.device, precision=settings.precision)
    suite = suite or load_suite(settings.metrics, model.device)
    _check_size(settings.data.size, model)
    choices = choices_of(settings, benchmark, model, suite)
    store = Store(settings.output, choices)
    runner = Runner(model, suite, settings, store)
    problems = list(benchmark.problems)
    sources = gather_sources(tasks, runner.side, problems)
    if not sources:
        raise UserError(f"none of {len(tasks)} edits can be used; the first: {problems[0]}")
    total = sum(len(source.tasks) for source in sources)
    done: dict[str, Record] = {}
    runner.tell = lambda doing: progress(len(done), total, doing)
    for first in range(0, len(sources), settings.batch_size):
        group = sources[first : first + settings.batch_size]
        names = [task.name for source in group for task in source.tasks]
        found = {name: record for name in names if (record := store.record(name)) is not None}
        if len(found) < len(names):
            found = {}
            for task, record in runner.run(group):
                store.add(task.name, record)
                found[task.name] = record
        done |= found
    progress(len(done), total, "done")
    records = [done[task.name] for source in sources for task in source.tasks]
    rows = [row for record in records for row in record.rows]
    problems += [problem for record in records for problem in record.problems]
    return Results(rows, choices, suite.metrics, suite.absent, problems), store


def _check_size(size: int | None, model: DiffusionModel) -> None:
    if size is not None and (size < 1 or size % model.size_multiple):
        raise UserError(
            f"--data.size is {size}; give a multiple of {model.size_multiple}, such as {model.default_size}"
        )


def load_suite(options: MetricOptions, device: str | torch.device = "cpu") -> Suite:
    """The metrics; ``farmyard`` is the CLIP that the package ships.

    Raises:
        UserError: The shipped CLIP is missing or damaged, or a metric of one's own cannot be imported.
    """
    if options.clip == SHIPPED:
        check_shipped()
        options = replace(options, clip=str(PRETRAINED / "clip"))
    return load_metrics(options, device)


def choices_of(
    settings: Settings, benchmark: Benchmark, model: DiffusionModel, suite: Suite
) -> dict[str, Any]:
    """Everything that the numbers depend on, as plain values; not what only says how many are measured."""
    named = asdict(settings.metrics)
    return {
        "benchmark": benchmark.name,
        "benchmark_digest": _digest(benchmark),
        "model": {
            **asdict(settings.loading),
            "size": settings.data.size or model.default_size,
            "device": str(model.device),
            "precision": model.precision,
        },
        "fingerprint": model.fingerprint,
        "methods": {name: method.describe(model) for name, method in settings.methods.items()},
        "edit": asdict(settings.edit),
        "editing": list(settings.editing),
        "metrics": {key: name if key in (*suite.networks, "own") else None for key, name in named.items()},
        "clip_similarities": "clip_image_* and clip_text_* are raw cosines; clip_whole and clip_edited x100",
        "std": "of the sample (n - 1)",
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "versions": {name: _version(name) for name in PACKAGES},
        "hardware": _hardware(model),
    }


def _digest(benchmark: Benchmark) -> str:
    """A short hash of the tasks, so that a changed benchmark is not taken for the old one."""
    tasks = [(t.name, t.prompt, t.target_prompt, t.edit_type, t.blend, t.mask_runs) for t in benchmark.tasks]
    return hashlib.sha256(repr(tasks).encode(errors="surrogateescape")).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _hardware(model: DiffusionModel) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads"
