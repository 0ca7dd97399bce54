"""Benchmarks: methods side by side on the edits of many pictures, with tables and figures."""

from nulltext.evaluation.benchmarks import Benchmark, Task, open_benchmark
from nulltext.evaluation.evaluate import check, evaluate
from nulltext.evaluation.progress import Progress
from nulltext.evaluation.results.figures import write_figures
from nulltext.evaluation.results.rows import Results, Row
from nulltext.evaluation.results.tables import markdown, write_results
from nulltext.evaluation.settings import (
    COMPARED,
    WAYS,
    DataOptions,
    PublishedEdit,
    Settings,
    build_methods,
    find_compared,
)

__all__ = [
    "COMPARED",
    "WAYS",
    "Benchmark",
    "DataOptions",
    "Progress",
    "PublishedEdit",
    "Results",
    "Row",
    "Settings",
    "Task",
    "build_methods",
    "check",
    "evaluate",
    "find_compared",
    "markdown",
    "open_benchmark",
    "write_figures",
    "write_results",
]
