"""A benchmark from its folder to the rows of its table, continued where it was stopped."""

import hashlib
import importlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from nulltext.data.decode import decode
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks import open_benchmark
from nulltext.evaluation.benchmarks.base import Benchmark, gather_sources
from nulltext.evaluation.benchmarks.finished import check_finished, find_finished
from nulltext.evaluation.protocol import protocol
from nulltext.evaluation.results import Results, Store
from nulltext.evaluation.runner import Runner
from nulltext.evaluation.settings import Settings
from nulltext.evaluation.share import gather_records, own_device, rank_and_world
from nulltext.evaluation.ways import check_way
from nulltext.metrics import MetricOptions, Suite, load_metrics
from nulltext.models.base import DiffusionModel
from nulltext.models.device import find_device, find_precision
from nulltext.models.loading import check_model, load_model
from nulltext.models.shipped import PRETRAINED, SHIPPED, check_shipped

PACKAGES = ("torch", "diffusers", "transformers", "torchmetrics", "nulltext")


def check(settings: Settings) -> None:
    """UserError where there is no such device, precision, way, folder or model; nothing is read or drawn."""
    find_device(settings.device)
    find_precision(settings.precision)
    for way in settings.editing:
        check_way(way)
    for folder in settings.finished.values():
        check_finished(folder)
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
    was stopped as it was. Of n processes that torchrun started, each takes every n-th batch; all give the same results.
    Model, metrics and benchmark are loaded unless they are given. ``progress`` is told the edits done, all edits (0
    where that is not known yet), and what is being done.

    Raises:
        UserError: Nothing to measure, wrong choices, or an output folder begun with others.
    """
    if model is None:
        check(settings)
    benchmark = benchmark or open_benchmark(settings.data)
    tasks = benchmark.limited(settings.data.limit, settings.data.edit_types)
    finished = {name: find_finished(folder, tasks) for name, folder in settings.finished.items()}
    progress(0, 0, "loading the model" if settings.methods else "loading the metrics")
    device, (rank, world) = own_device(settings.device), rank_and_world()
    if model is None and settings.methods:
        loading = settings.loading
        model = load_model(loading.pretrained, loading, device, precision=settings.precision)
    suite = suite or load_suite(settings.metrics, model.device if model else find_device(device))
    size = side_of(settings, model, finished)
    choices = choices_of(settings, benchmark, model, suite, size)
    store = Store(settings.output, choices)
    runner = Runner(model, suite, settings, store, size, finished)
    problems = list(benchmark.problems)
    progress(0, 0, f"reading the pictures of {len(tasks)} edits")
    sources = gather_sources(tasks, size, problems)
    if not sources:
        raise UserError(f"none of {len(tasks)} edits can be used; the first: {problems[0]}")
    names = [task.name for source in sources for task in source.tasks]
    finished_edits = 0
    runner.tell = lambda doing: progress(finished_edits, len(names), doing)
    for first in range(rank * settings.batch_size, len(sources), world * settings.batch_size):
        group = sources[first : first + settings.batch_size]
        tasks = [task for source in group for task in source.tasks]
        if any(store.record(task.name) is None for task in tasks):
            for task, record in runner.run(group):
                store.add(task.name, record)
        finished_edits += len(tasks)
    if finished_edits < len(names):
        runner.tell("waiting for the other processes")
    done = gather_records(store, names)
    progress(len(done), len(names), "done")
    rows = [row for name in names for row in done[name].rows]
    problems += [problem for name in names for problem in done[name].problems]
    measured = [task for source in sources for task in source.tasks if done[task.name].rows]
    commits = (done[task.name].commit for task in measured)
    stamp = protocol(choices, measured, benchmark.prompts, commits)
    results = Results(rows, choices, suite.metrics, suite.absent, problems, stamp)
    seeing = [n for n in results.methods if getattr(settings.methods.get(n), "sees_picture", True)]
    results.baseline = settings.baseline or next(iter(seeing), None)
    return results, store


def side_of(settings: Settings, model: DiffusionModel | None, finished: Mapping[str, Any]) -> int:
    """The side of the pictures in pixels: as given, the model's own, or that of the first finished picture."""
    size = settings.data.size
    if model is None:
        first = next(
            made.path for found in finished.values() for several in found.values() for made in several
        )
        size = size or min(decode(first)[0].size)
    multiple, own = (model.size_multiple, model.default_size) if model else (1, 512)
    size = own if size is None else size
    if size < 1 or size % multiple:
        raise UserError(f"--data.size is {size}; give a multiple of {multiple}, such as {own}")
    return size


def load_suite(options: MetricOptions, device: str | torch.device = "cpu") -> Suite:
    """The metrics; ``farmyard`` is the CLIP that the package ships, UserError where it is missing or damaged."""
    if options.clip != SHIPPED:
        return load_metrics(options, device)
    check_shipped()
    suite = load_metrics(replace(options, clip=str(PRETRAINED / "clip")), device)
    return replace(suite, options=options)


def choices_of(
    settings: Settings, benchmark: Benchmark, model: DiffusionModel | None, suite: Suite, size: int
) -> dict[str, Any]:
    """Everything that the numbers depend on, as plain values; not what only says how many are measured."""
    named = asdict(settings.metrics)
    tasks = [(t.name, t.prompt, t.target_prompt, t.edit_type, t.blend, t.mask_runs) for t in benchmark.tasks]
    digest = hashlib.sha256(repr(tasks).encode(errors="surrogateescape")).hexdigest()[:16]
    if model is not None and model.device.type == "cuda":
        hardware = torch.cuda.get_device_name(model.device)
    else:
        hardware = f"{platform.machine()} {platform.system()}, {torch.get_num_threads()} threads"
    return {
        "benchmark": benchmark.name,
        "benchmark_digest": digest,
        "side": size,
        "model": model
        and {**asdict(settings.loading), "device": model.device.type, "precision": model.precision},
        "fingerprint": model and model.fingerprint,
        "methods": {name: method.describe(model) for name, method in settings.methods.items() if model},
        "finished": {name: str(folder) for name, folder in settings.finished.items()},
        "round_trip": settings.round_trip,
        "edit": asdict(settings.edit),
        "editing": list(settings.editing),
        "metrics": {
            key: suite.names.get(key, name) if key in (*suite.networks, "own") else None
            for key, name in named.items()
        },
        "clip_similarities": "clip_image_* and clip_text_* are raw cosines; clip_whole and clip_edited x100",
        "std": "of the sample (n - 1)",
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "versions": {name: importlib.import_module(name).__version__ for name in PACKAGES},
        "hardware": hardware,
    }
