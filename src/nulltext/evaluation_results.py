"""What a benchmark leaves: one record a picture while it runs, tables at the end.

OUTPUT/choices.json            everything the numbers depend on; another run with other choices is refused
OUTPUT/pictures/NAME.json      the scores of one edit and what was wrong with it, written when all its pictures are;
                               never done twice
OUTPUT/pictures/NAME/*.png     source, truth, and one picture a method and way of editing
OUTPUT/results.csv .json .md   a row a picture, edit and method; summary; tables to read
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.metrics import METRICS

RECONSTRUCTION = "reconstruction"

SLIDES_METRICS = (
    "ssim",
    "clip_image_target",
    "clip_image_source",
    "clip_text_target",
    "clip_text_source",
    "seconds",
)
PIE_METRICS = (
    "structure_distance",
    "background_psnr",
    "background_lpips",
    "background_mse",
    "background_ssim",
    "clip_whole",
    "clip_edited",
)
TRUTH_METRICS = (
    "counterfactual_psnr",
    "counterfactual_psnr_inside",
    "counterfactual_ssim",
    "background_psnr_outside",
    "structure_distance_corrected",
)
RECONSTRUCTION_METRICS = ("psnr", "ssim", "mse", "seconds", "unet_evaluations")

TITLES = {m.name: m.title for m in METRICS} | {
    "seconds": "Generation time, s",
    "unet_evaluations": "UNet evaluations",
}
SCALES = {m.name: m.scale for m in METRICS}


@dataclass(frozen=True)
class Row:
    """One output: which picture, which edit, how it was made, and its scores."""

    picture: str
    edit_type: str
    method: str
    editing: str  # "reconstruction", or one of `evaluation_settings.WAYS`
    seconds: float  # from the picture to this output, inversion included
    unet_evaluations: float  # forward and backward passes on the way, a picture's share of its batch
    scores: dict[str, float]

    def value(self, name: str) -> float | None:
        """A score, or `seconds` or `unet_evaluations`; None where it was not measured."""
        if name in ("seconds", "unet_evaluations"):
            return float(getattr(self, name))
        return self.scores.get(name)


@dataclass(frozen=True)
class Record:
    """All that came of one edit."""

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
        """Summarise values, NaNs among them."""
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
    def metrics(self) -> list[str]:
        """Names of what was measured, in the order of the tables."""
        there = {name for row in self.rows for name in row.scores}
        return [m.name for m in METRICS if m.name in there] + ["seconds", "unet_evaluations"]

    def summary(self, method: str, editing: str, metric: str, edit_type: str | None = None) -> Summary:
        """A metric over the pictures of one cell of the tables."""
        values = [
            row.value(metric)
            for row in self.rows
            if (row.method, row.editing) == (method, editing) and edit_type in (None, row.edit_type)
        ]
        return Summary.of(v for v in values if v is not None)


class Store:
    """The folder in which a benchmark's records gather, so that a restart continues."""

    def __init__(self, folder: Path, choices: Mapping[str, Any]) -> None:
        """Take up a folder, or begin it.

        Raises:
            UserError: The folder holds a benchmark that was run with other choices.
        """
        self.folder = Path(folder)
        self.pictures = self.folder / "pictures"
        wanted = json.loads(json.dumps(choices))
        path = self.folder / "choices.json"
        if path.is_file():
            try:
                found = json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is damaged; delete {folder} or choose another --output") from error
            _refuse_others(folder, _flat(found), _flat(wanted))
        else:
            write_atomically(path, lambda p: _write(p, json.dumps(wanted, indent=2) + "\n"))

    def record(self, name: str) -> Record | None:
        """What came of one edit, or None where it is not finished (or its record is damaged)."""
        try:
            found = json.loads((self.pictures / f"{name}.json").read_text())
            return Record([Row(**row) for row in found["rows"]], [str(p) for p in found["problems"]])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def add(self, name: str, record: Record) -> None:
        """Record an edit as finished."""
        text = json.dumps(asdict(record), indent=1)
        write_atomically(self.pictures / f"{name}.json", lambda p: _write(p, text + "\n"))

    def picture(self, name: str, what: str) -> Path:
        """Where a picture of an edit lies."""
        return self.pictures / name / f"{what}.png"


def _flat(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Nested choices under dotted names, as on the command line."""
    flat: dict[str, Any] = {}
    for key, value in choices.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _refuse_others(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Stop where the choices differ by more than the hardware: a benchmark may move house."""
    differing = [
        f"{name} {found.get(name)!r}, not {wanted.get(name)!r}"
        for name in dict.fromkeys([*wanted, *found])
        if name != "hardware" and found.get(name) != wanted.get(name)
    ]
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise UserError(
            f"{folder} was begun with {'; '.join(differing[:3])}{more}; choose another --output, or delete it"
        )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_results(results: Results, folder: Path) -> None:
    """Write results.csv, results.json and results.md."""
    csv_text, json_text, md_text = _csv(results), _json(results), _markdown(results)
    write_atomically(folder / "results.csv", lambda p: _write(p, csv_text))
    write_atomically(folder / "results.json", lambda p: _write(p, json_text))
    write_atomically(folder / "results.md", lambda p: _write(p, md_text))


def _csv(results: Results) -> str:
    """A row a picture, edit type, method and way of editing; what was not measured stays empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["picture", "edit_type", "method", "editing", *results.metrics])
    for row in results.rows:
        values = ["" if (v := row.value(name)) is None else f"{v:.6g}" for name in results.metrics]
        writer.writerow([row.picture, row.edit_type, row.method, row.editing, *values])
    return out.getvalue()


def _json(results: Results) -> str:
    """Summary of everything, raw values without the tables' scales; NaN becomes null."""
    kinds = [None, *sorted({row.edit_type for row in results.rows})]
    summary = {
        kind or "all": {
            f"{method} {editing}": {
                metric: {k: None if v != v else v for k, v in asdict(cell).items()}
                for metric in results.metrics
                if (cell := results.summary(method, editing, metric, kind)).n + cell.nan
            }
            for method in results.methods
            for editing in results.ways
        }
        for kind in kinds
    }
    document = {
        "edits": len({row.picture for row in results.rows}),
        "choices": results.choices,
        "definitions": {m.name: m.definition for m in METRICS if m.name in results.metrics},
        "absent": results.absent,
        "problems": results.problems,
        "summary": summary,
    }
    return json.dumps(document, indent=1) + "\n"


def _markdown(results: Results) -> str:
    """The tables to read: reconstruction, the slides' for each way of editing, PIE-Bench's, truth."""
    pictures = len({row.picture for row in results.rows})
    parts = [f"# {results.choices.get('benchmark', 'benchmark')}: {pictures} edits\n"]
    parts.append("Mean ± standard deviation over edits; NaNs are left out and counted.\n")
    parts.append(_by_method(results, "Reconstruction", RECONSTRUCTION, RECONSTRUCTION_METRICS))
    for way in results.ways:
        title = "the reconstruction" if way == RECONSTRUCTION else f"the {way.replace('_', '-')} edit"
        parts.append(_by_method(results, f"The slides' table, output: {title}", way, SLIDES_METRICS))
    edits = [way for way in results.ways if way != RECONSTRUCTION]
    parts.append(_by_output(results, "PIE-Bench's table", edits, PIE_METRICS))
    parts.append(_by_output(results, "Against the true answer, and corrected forms", edits, TRUTH_METRICS))
    parts.append(_notes(results))
    return "\n".join(part for part in parts if part)


def _by_method(results: Results, title: str, way: str, metrics: Sequence[str]) -> str:
    """A table with a row a metric and a column a method."""
    measured = [m for m in metrics if m in results.metrics]
    lines = [
        f"## {title}\n",
        _line(["metric", *results.methods]),
        _line(["---"] * (1 + len(results.methods))),
    ]
    for metric in measured:
        cells = [_cell(results.summary(method, way, metric), metric) for method in results.methods]
        lines.append(_line([TITLES[metric], *cells]))
    return "\n".join(lines) + "\n"


def _by_output(results: Results, title: str, ways: Sequence[str], metrics: Sequence[str]) -> str:
    """A table with a row a method and way of editing, and a column a metric; "" where nothing was measured."""
    measured = [m for m in metrics if m in results.metrics]
    if not measured or not ways:
        return ""
    lines = [f"## {title}\n", _line(["method", "editing", *(TITLES[m] for m in measured)])]
    lines.append(_line(["---"] * (2 + len(measured))))
    for way in ways:
        for method in results.methods:
            cells = [_cell(results.summary(method, way, metric), metric) for metric in measured]
            lines.append(_line([method, way, *cells]))
    return "\n".join(lines) + "\n"


def _cell(summary: Summary, metric: str) -> str:
    """Mean ± deviation at the table's scale, with the number of NaNs where there are any."""
    if not summary.n + summary.nan:
        return "-"
    scale = SCALES.get(metric, 1)
    fine = metric.startswith(("clip_image", "clip_text")) or (metric.endswith("ssim") and scale == 1)
    digits = 4 if fine else 2
    text = f"{summary.mean * scale:.{digits}f} ± {summary.std * scale:.{digits}f}"
    return text + (f" ({summary.nan} NaN)" if summary.nan else "")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _notes(results: Results) -> str:
    """What the columns mean, what is absent and why, what was skipped, and the choices."""
    lines = ["## Definitions\n"]
    lines += [f"- **{m.title}** (`{m.name}`): {m.definition}" for m in METRICS if m.name in results.metrics]
    if results.absent:
        lines += ["\n## Left out\n", *(f"- `{name}`: {why}" for name, why in results.absent.items())]
    if results.problems:
        lines += [
            f"\n## Skipped: {len(results.problems)}\n",
            *(f"- {problem}" for problem in results.problems),
        ]
    lines += ["\n## Choices\n", *(f"- {k}: {json.dumps(v)}" for k, v in results.choices.items())]
    return "\n".join(lines) + "\n"
