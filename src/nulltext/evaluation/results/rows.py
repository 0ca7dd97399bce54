"""What a benchmark measures: rows of scores, their means, and what a reader needs to trust them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nulltext.metrics import Column

RECONSTRUCTION = "reconstruction"


class Seconds(Column):
    """Seconds from the picture to the output, inversion included: a picture's part of its batch."""

    name, title, unit, better = "seconds", "Generation time", "s", "lower"
    tables = ("reconstruction", "slides")


class Evaluations(Column):
    """Forward and backward passes of the network from the picture to the output, one per latent."""

    name, title, better, tables = "unet_evaluations", "UNet evaluations", "lower", ("reconstruction",)


COSTS: tuple[Column, ...] = (Seconds(), Evaluations())


@dataclass(frozen=True)
class Cost:
    """Seconds and evaluations of the network (forward and backward passes, one per latent)."""

    seconds: float = 0.0
    evaluations: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.evaluations + other.evaluations)

    def each(self, number: int) -> Cost:
        """One picture's part of a batch."""
        return Cost(self.seconds / number, self.evaluations / number)


@dataclass(frozen=True)
class Row:
    """One output: which picture, which edit, how it was made, and its scores."""

    picture: str
    edit_type: str
    method: str
    editing: str  # ``RECONSTRUCTION``, or a way of editing
    seconds: float
    unet_evaluations: float
    scores: dict[str, float]

    def value(self, name: str) -> float | None:
        """A score or a cost; None where it was not measured."""
        if name in ("seconds", "unet_evaluations"):
            return float(getattr(self, name))
        return self.scores.get(name)


@dataclass(frozen=True)
class Record:
    """Everything about one edit."""

    rows: list[Row]
    problems: list[str]  # each begins with the edit's name


@dataclass(frozen=True)
class Summary:
    """A metric over the pictures of one method and way of editing; NaNs are left out and counted."""

    mean: float
    std: float  # of the sample (n - 1); NaN below two values
    n: int
    nan: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summarises values, NaNs among them."""
        listed = list(values)
        known = [v for v in listed if not math.isnan(v)]
        mean = statistics.fmean(known) if known else math.nan
        std = statistics.stdev(known) if len(known) > 1 else math.nan
        return cls(mean, std, len(known), len(listed) - len(known))


@dataclass
class Results:
    """All rows of a benchmark and what a reader needs to trust them."""

    rows: list[Row]
    choices: dict[str, Any]
    measured: Sequence[Column] = ()  # the metrics, in the order of the tables
    absent: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

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
        return [column for column in self.measured if column.name in there] + list(COSTS)

    def table(self, name: str) -> list[Column]:
        """The columns of a table."""
        return [column for column in self.columns if name in column.tables]

    def values(self, method: str, editing: str, column: Column, edit_type: str | None = None) -> list[float]:
        """A column's values of one cell of the tables, NaN among them."""
        values = [
            row.value(column.name)
            for row in self.rows
            if (row.method, row.editing) == (method, editing) and edit_type in (None, row.edit_type)
        ]
        return [value for value in values if value is not None]

    def summary(self, method: str, editing: str, column: Column, edit_type: str | None = None) -> Summary:
        """A column over the pictures of one cell of the tables."""
        return Summary.of(self.values(method, editing, column, edit_type))
