"""Readers of benchmarks, which give the same tasks. A folder is looked at to find out what it is, never written to."""

from collections.abc import Callable
from pathlib import Path

from nulltext.data.find import find_pictures
from nulltext.data.metadata import METADATA_NAMES, METADATA_SUFFIXES
from nulltext.data.text import on_disk
from nulltext.errors import UserError
from nulltext.evaluation.benchmarks import folders
from nulltext.evaluation.benchmarks.base import Benchmark
from nulltext.evaluation.benchmarks.pie_bench import MAPPING, read_pie_bench
from nulltext.evaluation.settings import DataOptions

READERS: dict[str, Callable[[Path, DataOptions], Benchmark]] = {
    "pie_bench": lambda folder, data: read_pie_bench(folder, data.mapping),
    "imagefolder": lambda folder, data: folders.read_imagefolder(folder),
    "parquet": lambda folder, data: folders.read_parquet(folder, data.columns),
    "run_folder": lambda folder, data: folders.read_run_folder(folder),
    "pictures": lambda folder, data: folders.read_pictures(folder),
}
"""The reader of each form that a benchmark may have, in the order in which they are tried."""


def open_benchmark(data: DataOptions) -> Benchmark:
    """Reads the benchmark in a folder, in the form that is named or found there; UserError where there is none."""
    known = ("auto", "farmyard", *READERS)
    if data.benchmark not in known:
        raise UserError(f"--data.benchmark {data.benchmark!r} is not one of {', '.join(known)}")
    if data.folder is None:
        raise UserError("where is the benchmark? give its folder with --data.folder")
    folder = on_disk(data.folder)
    if not folder.exists():
        raise UserError(
            f"no folder {folder}; give the benchmark's, or that of your pictures, with --data.folder"
        )
    kind = data.benchmark if data.benchmark in READERS else detect(folder, data.mapping)
    return READERS[kind](folder, data)


def detect(folder: Path, mapping: str = MAPPING) -> str:
    """Which of ``READERS`` suits what a folder, or a file, holds; UserError where none does."""
    if (folder / mapping).is_file():
        return "pie_bench"
    if folder.suffix in METADATA_SUFFIXES or any((folder / name).is_file() for name in METADATA_NAMES):
        return "imagefolder"
    if folder.suffix == ".parquet" or next(folder.rglob("*.parquet"), None):
        return "parquet"
    if (folder / folders.ARTIFACT).is_file() or next(folder.glob(f"*/{folders.ARTIFACT}"), None):
        return "run_folder"
    try:
        find_pictures([folder])
    except UserError as error:
        raise UserError(
            f"{folder} holds no benchmark: no {mapping}, metadata.jsonl, .parquet file, run of fit, or picture with "
            "a caption beside it; give another --data.folder"
        ) from error
    return "pictures"
