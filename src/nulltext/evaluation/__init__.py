"""Benchmarks: methods side by side on the edits of many pictures, with tables and figures."""

from nulltext.evaluation.benchmarks import open_benchmark
from nulltext.evaluation.benchmarks.base import Benchmark
from nulltext.evaluation.evaluate import check, evaluate
from nulltext.evaluation.progress import Progress
from nulltext.evaluation.report.figures import write_figures
from nulltext.evaluation.report.files import write_results
from nulltext.evaluation.report.tables import markdown
from nulltext.evaluation.settings import COMPARED, DataOptions, Settings, build_methods, find_compared
from nulltext.evaluation.share import rank_and_world

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
    "rank_and_world",
    "write_figures",
    "write_results",
]
