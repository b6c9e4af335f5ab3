"""Answers that are there -> scores of a benchmark: lines matched with problems, totals, intervals, files."""
