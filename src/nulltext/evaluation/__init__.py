"""Benchmarks: methods side by side on the edits of many pictures, with tables and figures."""

from nulltext.evaluation.benchmarks import open_benchmark
from nulltext.evaluation.benchmarks.base import Benchmark
from nulltext.evaluation.evaluate import check, evaluate
from nulltext.evaluation.progress import Progress
from nulltext.evaluation.report import markdown, write_figures, write_results
from nulltext.evaluation.settings import COMPARED, DataOptions, Settings, build_methods, find_compared

__all__ = [
    "COMPARED",
    "Benchmark",
    "DataOptions",
    "Progress",
    "Settings",
    "build_methods",
    "check",
    "evaluate",
    "find_compared",
    "markdown",
    "open_benchmark",
    "write_figures",
    "write_results",
]
