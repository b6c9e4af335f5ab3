"""What an evaluation or a scoring ends with: a table beside the published numbers, its page, a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.compare import compare_folders
from onethinker_jax.evaluate.page.page import page_of_results
from onethinker_jax.evaluate.results.result import Result
from onethinker_jax.evaluate.results.totals import Total
from onethinker_jax.evaluate.text_table import table_text, terminal_width

_HEAD = ("benchmark", "metric", "released", "standard", "95% interval", "n", "failed")
_PUBLISHED = ("Qwen3-VL-8B", "OneThinker-8B", "published as")


def ending(
    out: Path,
    results: Sequence[Result],
    samples: Mapping[str, Sequence[Sample]],
    *,
    page: bool,
    other: Path | None,
) -> Iterator[str]:
    """The lines to be shown of results that are in `out`.

    Args:
        out: the folder.
        results: that are in it.
        samples: of each benchmark.
        page: whether to write the page.
        other: a folder of results that these are compared with.

    Raises ResultsError: the other results are not of the same files. OSError.
    """
    yield from table_lines(results, terminal_width())
    for result in results:
        for reason, count in result.left_out().items():
            yield f"{result.benchmark.name}: {count:,} × {reason}"
    if other is not None:
        yield ""
        yield from compare_folders(other, out)
    if page:
        page_of_results(out, samples)


def table_lines(results: Sequence[Result], width: int | None = None) -> list[str]:
    """A row a metric that any problem has, with what was published of it; `width` is as in `table_text`."""
    rows = []
    for result in results:
        benchmark = result.benchmark
        for metric, total in result.totals.items():
            if not total.n + total.failed:
                continue
            published = benchmark.published.get(metric)
            said = ("", "", "")
            if published is not None:
                said = (f"{published[0]:.4g}", f"{published[1]:.4g}", benchmark.published_form)
            rows.append((benchmark.name, metric, *_cells(total), *said))
    return table_text((*_HEAD, *_PUBLISHED), rows, named=2, width=width)


def _cells(total: Total) -> tuple[str, str, str, str, str]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    interval = "-" if total.low is None else f"{number(total.low)} to {number(total.high)}"
    return number(total.released), number(total.standard), interval, f"{total.n:,}", f"{total.failed:,}"
