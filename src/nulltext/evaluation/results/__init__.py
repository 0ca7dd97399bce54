"""What a benchmark leaves: rows of scores, the folder they gather in, tables and figures."""
