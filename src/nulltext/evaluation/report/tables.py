"""The tables of a benchmark, to read as Markdown and to print with LaTeX (booktabs)."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nulltext.evaluation.protocol import line
from nulltext.evaluation.results import RECONSTRUCTION, Results
from nulltext.metrics import Column

OF_OUTPUTS = {
    "pie": "PIE-Bench's table",
    "truth": "Against the true picture, and corrected forms",
    "further": "Further metrics",
}
"""The tables with a row for each method and way of editing, by the name that columns use."""
NOTHING = "-"
"""A cell that was not measured."""
ESCAPED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
ESCAPED |= {c: f"\\{c}" for c in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """Headings and cells, all of them text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """A heading of the second level and a table."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join([f"## {self.title}\n", *("| " + " | ".join(cells) + " |" for cells in lines)]) + "\n"

    def latex(self) -> str:
        """A ``table`` with its title as the caption."""
        head, *body = (" & ".join(map(_escape, cells)) + r" \\" for cells in (self.head, *self.rows))
        first = [
            r"\begin{table}",
            rf"\caption{{{_escape(self.title)}}}",
            r"\begin{tabular}{COLUMNS}",
            r"\toprule",
        ]
        last = [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
        lines = [*first, head, r"\midrule", *body, *last]
        return "\n".join(lines).replace("COLUMNS", "l" * len(self.head), 1)


def _escape(text: str) -> str:
    return re.sub(r"[\\~^±&%$#_{}]", lambda found: ESCAPED[found[0]], text)


def markdown(results: Results, notes: bool = True) -> str:
    """The tables to read, and with notes what columns mean, what is absent or was skipped and why, and the choices."""
    what = "pictures" if results.ways == [RECONSTRUCTION] else "edits"
    title = f"# {results.choices.get('benchmark', 'benchmark')}: {len({r.picture for r in results.rows})} {what}\n"
    parts = [title, f"{line(results.protocol)}\n"]
    parts.append(f"Mean ± standard deviation over {what}; NaNs are left out and counted.\n")
    parts += [table.markdown() for table in tables(results) if table.rows]
    return "\n".join([*parts, *([_notes(results)] if notes else [])])


def latex(results: Results) -> str:
    """The same tables, each a ``table`` for a document that uses the package booktabs."""
    return "\n".join(
        [f"% {line(results.protocol)}", *(table.latex() for table in tables(results) if table.rows)]
    )


def tables(results: Results) -> Iterator[Table]:
    """Reconstruction, source and target, the edits' metrics, and how methods differ; none that would be empty."""
    yield _by_method(results, "Reconstruction", RECONSTRUCTION, "reconstruction")
    for way in results.ways:
        output = "the reconstruction" if way == RECONSTRUCTION else f"the {way.replace('_', '-')} edit"
        yield _by_method(results, f"Source and target: {output}", way, "slides")
    for table, title in OF_OUTPUTS.items():
        columns = [column for column in results.columns if table in column.tables]
        yield _by_output(results, title, columns, _cell)
    boxed = [column for column in results.columns if column.boxed]
    title = f"Paired differences from {results.baseline}, with 95 % bootstrap intervals"
    if len(results.methods) > 1:
        yield _by_output(results, title, boxed, _difference)


def _by_method(results: Results, title: str, way: str, table: str) -> Table:
    """A row for each metric and a column for each method."""
    lines = [
        [column.heading, *(_cell(results, method, way, column) for method in results.methods)]
        for column in results.columns
        if table in column.tables
    ]
    known = [row for row in lines if set(row[1:]) - {NOTHING}]
    return Table(title, ["metric", *results.methods], known)


def _by_output(
    results: Results, title: str, columns: Sequence[Column], cell: Callable[[Results, str, str, Column], str]
) -> Table:
    """A row for each method and way of editing, a column for each metric."""
    lines = [
        [method, way, *(cell(results, method, way, column) for column in columns)]
        for way in results.ways
        for method in results.methods
        if way != RECONSTRUCTION
    ]
    known = [row for row in lines if set(row[2:]) - {NOTHING}]
    return Table(title, ["method", "editing", *(column.heading for column in columns)], known)


def _cell(results: Results, method: str, way: str, column: Column) -> str:
    """Mean ± deviation at the table's scale, with the number of NaNs where there are any."""
    summary = results.summary(method, way, column)
    if not summary.n + summary.nan:
        return NOTHING
    spread = f" ± {column.format(summary.std)}" if summary.n > 1 else ""
    return column.format(summary.mean) + spread + (f" ({summary.nan} NaN)" if summary.nan else "")


def _difference(results: Results, method: str, way: str, column: Column) -> str:
    """The mean difference with its interval."""
    found = results.difference(method, way, column)
    if not found.n:
        return NOTHING
    sign = "+" if found.mean > 0 else ""
    return f"{sign}{column.format(found.mean)} [{column.format(found.low)}, {column.format(found.high)}]"


def _notes(results: Results) -> str:
    lines = ["## Definitions\n"]
    for c in results.columns:
        lines.append(f"- **{c.heading}** (`{c.name}`, {c.better} is better): {c.definition}")
    if results.absent:
        lines += ["\n## Left out\n", *(f"- `{name}`: {why}" for name, why in results.absent.items())]
    if results.problems:
        lines += [f"\n## Skipped: {len(results.problems)}\n", *(f"- {each}" for each in results.problems)]
    choices = (f"- {k}: {json.dumps(v, default=str)}" for k, v in results.choices.items())
    return "\n".join([*lines, "\n## Choices\n", *choices]) + "\n"
