"""What a benchmark measures, and the folder in which it gathers while it runs, so that a restart continues.

OUTPUT/choices.json            everything that the numbers depend on; a run with other choices is refused
OUTPUT/records/NAME.json       the scores of one edit and what was wrong with it, written after all its pictures
OUTPUT/pictures/NAME/*.png     source, truth, mask, and one picture for each method and way of editing
OUTPUT/pictures/metadata.jsonl the rows, in the imagefolder form by which other evaluators score the pictures
OUTPUT/results.csv .jsonl      a row for each picture, edit and method
OUTPUT/results.json .md .tex   the summary; tables to read and to print
OUTPUT/sheets, OUTPUT/boxes    contact sheets and box plots
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from nulltext.errors import UserError
from nulltext.files import write_text
from nulltext.metrics import Column

RECONSTRUCTION = "reconstruction"


class Seconds(Column):
    """Seconds from the picture to the output, inversion included: a picture's part of its batch."""

    name, title, unit, better = "seconds", "Generation time", "s", "lower"
    tables = ("reconstruction", "slides")


class Evaluations(Column):
    """Forward and backward passes of the network from the picture to the output, one per latent."""

    name, title, better = "unet_evaluations", "Evaluations of the network", "lower"
    tables = ("reconstruction",)


class FileBytes(Column):
    """What the tensors of a picture's inversion file take, in bytes."""

    name, title, unit, better, digits = "file_bytes", "Inversion file", "bytes", "lower", 0
    tables = ("reconstruction",)


class RoundTrip(Column):
    """PSNR to the source of the edit taken back: inverted under the target prompt, edited to the source prompt.

    With --round_trip 10 of the last of ten.
    """

    name, title, unit = "round_trip_psnr", "Round trip PSNR", "dB"


COSTS: tuple[Column, ...] = (Seconds(), Evaluations(), FileBytes())
RESAMPLES = 2000  # of a bootstrap interval


@dataclass(frozen=True)
class Row:
    """One output: which picture, which edit, how it was made, its scores and its costs."""

    picture: str
    edit_type: str
    method: str
    editing: str  # ``RECONSTRUCTION``, or a way of editing
    scores: dict[str, float]  # without what was not measured
    prompt: str = ""
    target_prompt: str | None = None


@dataclass(frozen=True)
class Record:
    """Everything about one edit."""

    rows: list[Row]
    problems: list[str]  # each begins with the edit's name
    commit: str | None = None  # of the program that made it


@dataclass(frozen=True)
class Summary:
    """A metric over the pictures of one method and way of editing; NaNs are left out and counted."""

    mean: float
    std: float  # of the sample (n - 1); NaN below two values
    n: int
    nan: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Summarises values, NaNs among them."""
        listed = list(values)
        known = [v for v in listed if not math.isnan(v)]
        mean = statistics.fmean(known) if known else math.nan
        std = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(mean, std, len(known), len(listed) - len(known))


@dataclass(frozen=True)
class Difference:
    """A metric of two methods on the same pictures: the mean difference and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Mapping[str, float], others: Mapping[str, float]) -> Self:
        """Values minus others, by picture; a picture that one of them lacks, or a NaN, is left out."""
        pairs = [v - others[k] for k, v in values.items() if not math.isnan(v - others.get(k, math.nan))]
        if not pairs:
            return cls(math.nan, math.nan, math.nan, 0)
        differences, generator = np.array(pairs), np.random.default_rng(0)
        means = differences[generator.integers(len(pairs), size=(RESAMPLES, len(pairs)))].mean(1)
        low, high = np.percentile(means, (2.5, 97.5))
        return cls(float(differences.mean()), float(low), float(high), len(pairs))


@dataclass
class Results:
    """All rows of a benchmark and what a reader needs to trust them."""

    rows: list[Row]
    choices: dict[str, Any]
    measured: Sequence[Column] = ()  # the metrics, in the order of the tables
    absent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None  # the method that others are compared with; by default the first

    @property
    def ways(self) -> list[str]:
        """Ways of editing, the reconstruction first."""
        return list(dict.fromkeys(row.editing for row in self.rows))

    @property
    def methods(self) -> list[str]:
        """Methods in the order in which they ran."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def columns(self) -> list[Column]:
        """What was measured, costs last."""
        there = {name for row in self.rows for name in row.scores}
        return [column for column in (*self.measured, RoundTrip()) if column.name in there] + list(COSTS)

    def by_picture(
        self, method: str, editing: str, column: Column, edit_type: str | None = None
    ) -> dict[str, float]:
        """A column's values of one cell of the tables by picture, NaN among them."""
        rows = [r for r in self.rows if (r.method, r.editing) == (method, editing)]
        rows = [r for r in rows if edit_type in (None, r.edit_type) and column.name in r.scores]
        return {r.picture: r.scores[column.name] for r in rows}

    def difference(self, method: str, editing: str, column: Column) -> Difference:
        """How much a method differs from the baseline, on the same pictures."""
        others = {} if method == self.baseline else self.by_picture(self.baseline or "", editing, column)
        return Difference.of(self.by_picture(method, editing, column), others)

    def summary(self, method: str, editing: str, column: Column, edit_type: str | None = None) -> Summary:
        """A column over the pictures of one cell of the tables."""
        return Summary.of(self.by_picture(method, editing, column, edit_type).values())


def _flat(choices: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested choices under dotted names, as on the command line."""
    for key, value in choices.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class Store:
    """The folder in which a benchmark's records gather."""

    def __init__(self, folder: Path, choices: Mapping[str, Any]) -> None:
        """Opens a folder, or begins it; UserError where it holds a benchmark that was run with other choices."""
        self.folder = Path(folder)
        self.pictures, self.records = self.folder / "pictures", self.folder / "records"
        wanted = json.loads(json.dumps(choices, default=str))
        path = self.folder / "choices.json"
        if not path.is_file():
            write_text(path, json.dumps(wanted, indent=2) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is damaged; delete {folder} or choose another --output") from error
        begun, now = dict(_flat(found)), dict(_flat(wanted))
        differing = [
            f"{name} {begun.get(name)!r}, not {now.get(name)!r}"
            for name in dict.fromkeys([*now, *begun])
            if name != "hardware" and begun.get(name) != now.get(name)  # it may move to another machine
        ]
        if differing:
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise UserError(
                f"{folder} was begun with {'; '.join(differing[:3])}{more}; choose another --output, or delete it"
            )

    def record(self, name: str) -> Record | None:
        """The record of an edit; None where it is not finished, or its record is damaged."""
        try:
            found = json.loads((self.records / f"{name}.json").read_text(encoding="utf-8"))
            problems = [str(problem) for problem in found["problems"]]
            return Record([Row(**row) for row in found["rows"]], problems, found["commit"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def add(self, name: str, record: Record) -> None:
        """Records an edit as finished."""
        write_text(self.records / f"{name}.json", json.dumps(asdict(record), indent=1) + "\n")

    def picture(self, name: str, what: str) -> Path:
        """Where a picture of an edit is."""
        return self.pictures / name / f"{what}.png"
