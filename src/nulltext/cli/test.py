"""The verb ``test``: compares methods on a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import partial
from typing import Any, Literal

from torch.optim import Adam, Optimizer

from nulltext.cli.options import combine, pick
from nulltext.cli.parser import read_options
from nulltext.cli.words import Listed, find_value, gather
from nulltext.errors import UserError
from nulltext.evaluation import (
    COMPARED,
    Benchmark,
    Progress,
    Settings,
    build_methods,
    check,
    evaluate,
    find_compared,
    markdown,
    open_benchmark,
    rank_and_world,
    write_figures,
    write_results,
)
from nulltext.files import alone
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.models.loading import LoadingOptions

DESCRIPTION = (
    "Compares methods on a benchmark. If stopped, it goes on when the same command is started again."
)
LISTS = (
    Listed("--methods", "ddim,null_text", commas=True),
    Listed("--editing", "plain,default", commas=True),
    Listed("--data.edit_types", "object,colour", commas=True),
    Listed("--metrics.own", "my_module.MyMetric", commas=True),
)
PROBLEMS = 10
"""So many of the problems are printed; all of them are in results.md."""
OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], float]] = {
    "normalised_gradient": (NormalisedGradient, 0.002),
    "adam": (Adam, 0.01),
}
"""The inner optimisers that have a name here, with their learning rates."""


@dataclass(frozen=True)
class Shared:
    """What the methods have in common.

    Args:
        precision: The same as --precision.
        device: The same as --device.
        size: The same as --data.size.
        optimizer: The inner optimiser: adam as in the paper, normalised_gradient, or a class of torch.optim; by default
            as in fit.
        learning_rate: Of --model.optimizer; by default 0.01 for adam, as in the paper, 0.002 for normalised_gradient.
    """

    precision: str | int | None = None
    device: str | None = None
    size: int | None = None
    optimizer: Literal["adam", "normalised_gradient"] | Callable[[Iterable[Any]], Optimizer] | None = None
    learning_rate: float | None = None


def main(words: Sequence[str]) -> int:
    """Runs the verb; returns 0, or 1 where entries of the benchmark were skipped."""
    words = ["--methods=[]" if w == '--methods=["none"]' else w for w in gather(words, *LISTS)]
    alone = any(word.startswith("--finished") for word in words) and not find_value(words, "config")
    methods = find_value(words, "methods") or (
        [] if alone else list(COMPARED)
    )  # those of a stranger bring options
    kind = _options(json.loads(methods) if isinstance(methods, str) else methods)
    options: Any = read_options(kind, words, "main.py test", DESCRIPTION)
    settings = settings_of(options)
    check(settings)  # before anything is drawn
    if rank_and_world()[0]:  # the first process shows how far it is, and writes the tables
        return int(bool(evaluate(settings, benchmark=_benchmark(settings))[0].problems))
    with Progress() as progress:
        results, store = evaluate(settings, benchmark=_benchmark(settings), progress=progress)
    write_results(results, store)
    write_figures(results, store)
    for name, reason in results.absent.items():
        print(f"left out: {name}: {reason}")
    for problem in results.problems[:PROBLEMS]:
        print(f"problem: {problem}")
    if len(results.problems) > PROBLEMS:
        print(f"and {len(results.problems) - PROBLEMS} more problems: see {store.folder / 'results.md'}")
    print(markdown(results, notes=False))
    print(f"tables, pictures and box plots: {store.folder}; tensorboard --logdir {store.folder}")
    return int(bool(results.problems))


def settings_of(options: Any) -> Settings:
    """The settings that the options mean."""
    model = options.model
    shared = {f.name: getattr(model, f.name) for f in fields(model) if getattr(model, f.name) is not None}
    if model.optimizer in OPTIMIZERS:
        optimizer, rate = OPTIMIZERS[model.optimizer]
        shared["optimizer"] = partial(optimizer, lr=model.learning_rate or rate)
    elif model.learning_rate is not None:
        raise UserError(f"--model.learning_rate belongs to one of --model.optimizer {', '.join(OPTIMIZERS)}")
    settings = pick(Settings, replace(options, methods=build_methods(options.methods, shared)))
    return replace(
        settings,
        loading=pick(LoadingOptions, model),
        data=replace(settings.data, size=settings.data.size or model.size),
        precision=settings.precision if model.precision is None else model.precision,
        device=model.device or settings.device,
    )


def _options(methods: Sequence[str]) -> type:
    """The options of a comparison of these methods; a config may have options of our others, too."""
    kinds = dict.fromkeys([*COMPARED.values(), *map(find_compared, methods)])
    first = combine("First", *kinds)()
    own = {f.name for kind in kinds for f in fields(kind) if f.default != getattr(first, f.name)}
    # None leaves each method its own
    unset: Any = {
        "defaults": dict.fromkeys(own),
        "retype": lambda name, hint: hint | None if name in own else hint,
    }
    model = combine("The model and the methods", LoadingOptions, Shared, *kinds, **unset)
    chosen = ("methods", list[str], field(default_factory=lambda: list(methods)))
    run = make_dataclass("Run", [chosen, ("model", model, field(default_factory=model))])
    run.__doc__ = (
        f"Run.\n\nArgs:\n    methods: {', '.join(COMPARED)}, or import paths, with commas between; none to score "
        "only the pictures of --finished."
    )
    return combine("The comparison", run, Settings, leave_out=("loading",))


def _benchmark(settings: Settings) -> Benchmark:
    """The benchmark that the settings name; without a folder the farmyard's, drawn where it is not there."""
    data = settings.data
    if data.folder is not None or data.benchmark not in ("auto", "farmyard"):
        return open_benchmark(data)
    from nulltext.farmyard.recipe.benchmark import write_farmyard_benchmark

    folder = settings.output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"nulltext: the farmyard benchmark is in {folder}; drawn if it is not there", flush=True)
    with alone(folder):
        write_farmyard_benchmark(folder)
    benchmark = open_benchmark(replace(data, benchmark="pie_bench", folder=folder))
    benchmark.name = "farmyard"
    return benchmark
