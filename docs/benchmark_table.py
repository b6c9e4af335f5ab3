"""Puts the table of benchmarks into docs/evaluation.md, between the markers: `python docs/benchmark_table.py`.

A row a benchmark of the paper; the splits of one share it. A test says when the page is behind.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from onethinker_jax.evaluate.benchmarks.table import TABLE
from onethinker_jax.evaluate.benchmarks.types import Benchmark

PAGE = Path(__file__).with_name("evaluation.md")
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"
HEAD = (
    "benchmark",
    "name",
    "files below `--data` (rows)",
    "metrics",
    "protocol",
    "judge",
    "published",
    "what it means",
)


def table() -> str:
    """The table in Markdown, a heading a family."""
    benchmarks: dict[tuple[str, str], list[Benchmark]] = {}
    for row in TABLE.values():
        benchmarks.setdefault((row.family, row.title), []).append(row)
    lines = [
        f"{len(benchmarks)} benchmarks. Rows are those of the published file, of each name in turn; `?`: nowhere said. "
        "Published are "
        "Qwen3-VL-8B-Instruct → OneThinker-8B in percent, with the form of the metric that they are in.",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
    ]
    family = ""
    for (of_family, title), rows in benchmarks.items():
        if of_family != family:
            family = of_family
            lines.append(f"| **{family}** |{' |' * (len(HEAD) - 1)}")
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in _cells(title, rows))} |")
    return "\n".join(lines) + "\n"


def _cells(title: str, rows: Sequence[Benchmark]) -> list[str]:
    first = rows[0]
    return [
        title,
        _each(f"`{row.name}`" for row in rows),
        "<br>".join(f"`{path}` ({counts})" for path, counts in _files(rows).items()),
        ", ".join(first.metrics) + ("" if first.rule == "mean" else f" ({first.rule})"),
        first.protocol,
        "" if first.judge == "none" else first.judge,
        _each(line for row in rows for line in _published(row, several=len(rows) > 1)),
        _each(row.note for row in rows),
    ]


def _each(texts: Iterable[str]) -> str:
    return "<br>".join(dict.fromkeys(texts))


def _files(rows: Sequence[Benchmark]) -> dict[str, str]:
    """Path -> the rows that each benchmark has there."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for file in row.files:
            count = row.rows if file.rows is None else file.rows
            found.setdefault(file.path, []).append("?" if count is None else f"{count:,}")
    return {path: " + ".join(counts) for path, counts in found.items()}


def _published(row: Benchmark, *, several: bool) -> list[str]:
    split = f"{row.split}: " if several and row.split else ""
    return [
        f"{split}{metric} {100 * base:.1f} → {100 * ours:.1f} ({row.published_form})"
        for metric, (base, ours) in row.published.items()
    ]


def main() -> int:
    """Rewrites the page."""
    text = PAGE.read_text("utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(f"{head}{BEGIN}{table()}{END}{tail}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
