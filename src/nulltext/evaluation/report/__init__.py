"""What a benchmark leaves to read: rows, a summary, tables, figures."""

from nulltext.evaluation.report.figures import write_figures
from nulltext.evaluation.report.files import write_results
from nulltext.evaluation.report.tables import markdown

__all__ = ["markdown", "write_figures", "write_results"]
