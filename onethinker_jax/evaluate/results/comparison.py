"""Two folders of results -> whether one is better, metric by metric, over the problems that both answered.

Both runs' answers to a problem are resampled together (`intervals.paired_bootstrap`). Where every problem is right or
wrong, the p value is McNemar's exact one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.shares import FORMS
from onethinker_jax.evaluate.results.clusters import is_circular, rows_of
from onethinker_jax.evaluate.results.intervals import RESAMPLES, mcnemar, paired_bootstrap
from onethinker_jax.evaluate.results.kept import KeptBenchmark, KeptProblem, KeptResults, ResultsError
from onethinker_jax.evaluate.results.totals import GROUP_RESAMPLES

_SHOWN = 200  # characters of an answer in an error

Test = Literal["McNemar", "paired bootstrap"]
Pair = tuple[KeptProblem, KeptProblem]


@dataclass(frozen=True)
class Compared:
    """A form of a metric in two runs, over the problems that have it in both."""

    a: float
    b: float
    difference: float
    """b minus a, with its 95% interval."""
    low: float
    high: float
    p_value: float
    test: Test
    n: int
    """Problems; questions, of a metric that takes all rotations of one together."""


Forms = dict[str, dict[str, Compared]]
"""Metric -> form -> how it differs."""


@dataclass(frozen=True)
class ComparedBenchmark:
    """A benchmark in two runs."""

    name: str
    both: int
    """Problems that both answered."""
    only_a: int
    """Problems that are in A alone."""
    only_b: int
    answered_only_a: int
    """Problems of both that B has no answer to."""
    answered_only_b: int
    metrics: Forms
    tasks: dict[str, Forms]
    not_compared: tuple[str, ...]
    """Metrics that a problem's values do not make, or that only one run has."""

    def to_json(self) -> dict[str, Any]:
        """As compare.json has it."""
        return asdict(self)


def compare(a: KeptResults, b: KeptResults, *, seed: int = 0) -> list[ComparedBenchmark]:
    """The benchmarks that are in both folders, in A's order.

    Raises ResultsError: they have none in common, or one is of another file, by md5 or by a problem's true answer.
    """
    names = [name for name in a.benchmarks if name in b.benchmarks]
    if not names:
        has = " and ".join(f"{one.folder} has {', '.join(one.benchmarks) or 'none'}" for one in (a, b))
        raise ResultsError(f"no benchmark is in both folders: {has}")
    for name in names:
        _check_same(name, a, b)
    return [_compared(a.benchmarks[name], b.benchmarks[name], seed) for name in names]


def _check_same(name: str, a: KeptResults, b: KeptResults) -> None:
    mine, other = a.benchmarks[name], b.benchmarks[name]
    if mine.md5s != other.md5s:
        read = (f"{' '.join(one.md5s) or 'none'} ({where.folder})" for one, where in ((mine, a), (other, b)))
        raise ResultsError(f"{name}: the two runs are of different files: md5 {' and '.join(read)}")
    if mine.rule != other.rule:
        raise ResultsError(
            f"{name}: is aggregated by {mine.rule!r} in {a.folder}, by {other.rule!r} in {b.folder}"
        )
    for identity, problem in mine.problems.items():
        if (same := other.problems.get(identity)) is None:
            continue
        for key in ("task", "answer"):
            first, second = problem.rows[0][key], same.rows[0][key]
            if first != second:
                raise ResultsError(
                    f"{name}: problem_id {identity[:100]}: {key} differs, so the two runs are of different files: "
                    f"{first[:_SHOWN]!r} ({a.folder}), {second[:_SHOWN]!r} ({b.folder})"
                )


def _compared(a: KeptBenchmark, b: KeptBenchmark, seed: int) -> ComparedBenchmark:
    pairs = [(one, b.problems[key]) for key, one in a.problems.items() if key in b.problems]
    answered = [(bool(one.answers), bool(other.answers)) for one, other in pairs]
    tasks: dict[str, list[Pair]] = {}
    for pair in pairs:
        tasks.setdefault(pair[0].rows[0]["task"], []).append(pair)
    metrics = _forms(pairs, a, seed, RESAMPLES)
    return ComparedBenchmark(
        name=a.name,
        both=sum(one and other for one, other in answered),
        only_a=len(a.problems) - len(pairs),
        only_b=len(b.problems) - len(pairs),
        answered_only_a=sum(one and not other for one, other in answered),
        answered_only_b=sum(other and not one for one, other in answered),
        metrics=metrics,
        tasks={task: _forms(found, a, seed, GROUP_RESAMPLES) for task, found in tasks.items()},
        not_compared=tuple(name for name in dict.fromkeys([*a.metrics, *b.metrics]) if name not in metrics),
    )


def _forms(pairs: Sequence[Pair], benchmark: KeptBenchmark, seed: int, resamples: int) -> Forms:
    found: Forms = {}
    for metric in benchmark.metrics:
        forms: dict[str, Compared] = {}
        seen: list[tuple[Rows, Compared]] = []
        for form in FORMS:
            if (rows := _rows(pairs, metric, form, benchmark)) is None:
                continue
            same = (one for other, one in seen if all(map(np.array_equal, rows, other)))
            forms[form] = next(same, None) or _compared_rows(rows, metric, seed, resamples)
            seen.append((rows, forms[form]))
        if forms:
            found[metric] = forms
    return found


Rows = tuple[np.ndarray, np.ndarray]
"""Both runs' shares of the same clusters, float [clusters, K] each."""


def _rows(pairs: Sequence[Pair], metric: str, form: str, benchmark: KeptBenchmark) -> Rows | None:
    """Of the problems that have this form in both runs; None where there are none."""
    having = [pair for pair in pairs if all(one.shares(metric, form) for one in pair)]
    if form == "standard" and is_circular(metric, benchmark.rule):
        having = _whole_questions(pairs, having)
    if not having:
        return None
    a, b = (rows_of([pair[side] for pair in having], metric, form, benchmark.rule) for side in (0, 1))
    return a, b


def _compared_rows(rows: Rows, metric: str, seed: int, resamples: int) -> Compared:
    a, b = rows
    value = table.value_of(metric)
    found = paired_bootstrap(a, b, value, seed=seed, resamples=resamples)
    p_value = found.p_value
    test: Test = "paired bootstrap"
    if all(map(_right_or_wrong, rows)):
        p_value, test = mcnemar(a[:, 0] > 0, b[:, 0] > 0), "McNemar"
    of_a, of_b = (float(value(one.sum(axis=0))) for one in rows)
    return Compared(of_a, of_b, found.difference, found.low, found.high, p_value, test, len(a))


def _whole_questions(pairs: Sequence[Pair], having: Sequence[Pair]) -> list[Pair]:
    """Those of questions of which every rotation is among `having`."""
    there = {id(one) for one, _ in having}
    lacking = {one.rotation_of for one, _ in pairs if id(one) not in there}
    return [pair for pair in having if pair[0].rotation_of not in lacking]


def _right_or_wrong(rows: np.ndarray) -> bool:
    """Whether the rows are of a plain mean over values that are 0 or 1."""
    return rows.shape[1] == 2 and bool((rows[:, 1] == 1).all() and np.isin(rows[:, 0], (0, 1)).all())
