"""Two folders of results -> which is better, metric by metric and task by task, and how sure that is.

    python -m onethinker_jax.evaluate.compare results-sft results-rl

Over the problems that both answered: the difference B - A with its 95% interval by paired bootstrap, and a p value,
McNemar's where every problem is right or wrong. A table, and compare.json. Exit status: 0 done, 1 an error that is
named in one line, 2 a command line that cannot be used, 130 Ctrl-C.
"""

from onethinker_jax import command_line

if __name__ == "__main__":  # the imports below take time
    command_line.begin()

from onethinker_jax.evaluate.compare_arguments import CompareArguments

if __name__ == "__main__":
    command_line.help_if_asked(CompareArguments, prog="python -m onethinker_jax.evaluate.compare")

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from onethinker_jax.evaluate.metrics.shares import FORMS
from onethinker_jax.evaluate.metrics.table import LESS_IS_BETTER
from onethinker_jax.evaluate.results.comparison import ComparedBenchmark, Forms, compare
from onethinker_jax.evaluate.results.kept import KeptResults, read_results
from onethinker_jax.evaluate.text_table import table_text, terminal_width
from onethinker_jax.files import write_whole
from onethinker_jax.text_output import json_text, visible

logger = logging.getLogger("onethinker_jax.evaluate")  # also as __main__

_HEAD = ("metric", "form", "A", "B", "B - A", "95% interval", "p", "test", "n")


def run(arguments: CompareArguments) -> None:
    """Reads both folders, compares, writes and prints."""
    command_line.show_log(logging.StreamHandler(sys.stderr), level=logging.INFO)
    for line in compare_folders(arguments.a, arguments.b, arguments.out, seed=arguments.seed):
        sys.stdout.write(visible(line) + "\n")


def compare_folders(a: Path, b: Path, out: Path | None = None, *, seed: int = 0) -> list[str]:
    """Compares the results in two folders, writes compare.json (in `b` by default) and returns the table's lines.

    Raises ResultsError: a folder has no results, or the two are not of the same files. OSError.
    """
    first, second = read_results(a), read_results(b)
    compared = compare(first, second, seed=seed)
    out = b / "compare.json" if out is None else out
    whole = {
        "a": str(a),
        "b": str(b),
        "seed": seed,
        "benchmarks": {one.name: one.to_json() for one in compared},
        "only_in_a": [name for name in first.benchmarks if name not in second.benchmarks],
        "only_in_b": [name for name in second.benchmarks if name not in first.benchmarks],
    }
    write_whole(out, json_text(whole, indent=2) + "\n")
    return [*_lines(first, second, compared, terminal_width()), f"this comparison is in {out}"]


def _lines(
    a: KeptResults, b: KeptResults, compared: Sequence[ComparedBenchmark], width: int | None
) -> Iterator[str]:
    yield f"A: {a.folder}"
    yield f"B: {b.folder}"
    yield ""
    rows = [(one.name, *row) for one in compared for row in _rows(one.metrics)]
    yield from table_text(("benchmark", *_HEAD), rows, named=3, width=width)
    several = [one for one in compared if len(one.tasks) > 1]
    if several:
        yield ""
        rows = [
            (one.name, task, *row)
            for one in several
            for task, forms in one.tasks.items()
            for row in _rows(forms)
        ]
        yield from table_text(("benchmark", "task", *_HEAD), rows, named=4, width=width)
    yield ""
    for one in compared:
        yield from _counts(one)
    for here, there in ((a, b), (b, a)):
        alone = [name for name in here.benchmarks if name not in there.benchmarks]
        if alone:
            yield f"only in {here.folder}: {', '.join(alone)}"
    if any(name in LESS_IS_BETTER for one in compared for name in one.metrics):
        yield f"less is better: {', '.join(sorted(LESS_IS_BETTER))}"


def _rows(metrics: Forms) -> Iterator[tuple[str, ...]]:
    for metric, forms in metrics.items():
        for form in FORMS:
            if (found := forms.get(form)) is None:
                continue
            yield (
                *(metric, form, f"{found.a:.4f}", f"{found.b:.4f}", f"{found.difference:+.4f}"),
                *(
                    f"{found.low:+.4f} to {found.high:+.4f}",
                    f"{found.p_value:.2g}",
                    found.test,
                    f"{found.n:,}",
                ),
            )


def _counts(one: ComparedBenchmark) -> Iterator[str]:
    """How many problems were compared, and which are left out."""
    apart = {
        "only in A": one.only_a,
        "only in B": one.only_b,
        "answered by A alone": one.answered_only_a,
        "answered by B alone": one.answered_only_b,
    }
    said = "".join(f", {count:,} {what}" for what, count in apart.items() if count)
    yield f"{one.name}: both answered {one.both:,} problems{said}"
    if one.not_compared:
        yield f"{one.name}: not compared: {', '.join(one.not_compared)}"


main = partial(
    command_line.main,
    CompareArguments,
    run,
    prog="python -m onethinker_jax.evaluate.compare",
    stopped="nothing is written",
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
