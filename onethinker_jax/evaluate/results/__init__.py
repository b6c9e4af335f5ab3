"""Answers that are there -> scores of a benchmark: lines with problems, totals, intervals, comparisons, files."""
