"""What a benchmark leaves to read: rows, a summary, tables, figures."""
