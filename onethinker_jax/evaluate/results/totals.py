"""Totals of a benchmark: each metric's value in both forms with an interval, over all problems and by groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onethinker_jax.evaluate.benchmarks.task_metrics import is_measured
from onethinker_jax.evaluate.benchmarks.types import Rule
from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.accuracy import METRIC as ACCURACY
from onethinker_jax.evaluate.metrics.shares import FORMS, Value, ratio
from onethinker_jax.evaluate.results.clusters import is_circular, questions, rows_of
from onethinker_jax.evaluate.results.intervals import RESAMPLES, bootstrap
from onethinker_jax.evaluate.results.repeated import best_of, majority, pass_at
from onethinker_jax.evaluate.results.scored import ScoredProblem

PASS_AT_ALL, MAJORITY = "pass@k", "majority"
GROUP_RESAMPLES = 1_000
"""Of the interval of a group: there may be hundreds of groups."""


@dataclass(frozen=True)
class Total:
    """A metric over some problems."""

    released: float | None
    standard: float | None
    low: float | None
    high: float | None
    n: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        return asdict(self)


def total(
    shares: dict[str, np.ndarray], value: Value = ratio, *, failed: int, seed: int, resamples: int = RESAMPLES
) -> Total:
    """The total of the clusters' shares in each form, float [clusters, K]; the interval is of the standard form."""
    values = {form: float(value(rows.sum(axis=0))) if len(rows) else None for form, rows in shares.items()}
    shown = shares["standard"] if len(shares["standard"]) else shares["released"]
    low, high = bootstrap(shown, value, seed=seed, resamples=resamples) if len(shown) else (None, None)
    return Total(values["released"], values["standard"], low, high, len(shown), failed)


def totals(
    scored: Sequence[ScoredProblem],
    metrics: Iterable[str],
    *,
    rule: Rule = "mean",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Total]:
    """Each metric over the problems that have it; with several answers to a problem pass@k and the majority's too.

    A problem without any answer that has a share in the metric is counted as failed there.
    """
    found: dict[str, Total] = {}
    for metric in metrics:
        having = [one for one in scored if is_measured(one.task, metric)]
        failed = sum(all(one.share(metric, form) is None for form in FORMS) for one in having)
        shares = {form: rows_of(having, metric, form, rule) for form in FORMS}
        if is_circular(metric, rule):
            failed = len(questions(having)) - len(shares["standard"])
        found[metric] = total(shares, table.value_of(metric), failed=failed, seed=seed, resamples=resamples)
    if ACCURACY in found and any(len(one.problem.lines) > 1 for one in scored):
        having = [one for one in scored if is_measured(one.task, ACCURACY)]
        for name, rows, failed in _repeated(having):
            found[name] = total(rows, failed=failed, seed=seed, resamples=resamples)
    return found


def grouped(
    scored: Sequence[ScoredProblem], metrics: Sequence[str], *, rule: Rule = "mean", seed: int = 0
) -> dict[str, dict[str, dict[str, Total]]]:
    """The totals by each group that the problems are in: {"task": {"math (image)": {metric: …}}, …}."""
    members: dict[str, dict[str, list[ScoredProblem]]] = {}
    for one in scored:
        for kind, name in one.groups.items():
            members.setdefault(kind, {}).setdefault(name, []).append(one)
    return {
        kind: {
            name: {
                metric: found
                for metric, found in totals(
                    group, metrics, rule=rule, seed=seed, resamples=GROUP_RESAMPLES
                ).items()
                if found.n or found.failed
            }
            for name, group in sorted(groups.items())
        }
        for kind, groups in members.items()
    }


def _accuracies(one: ScoredProblem, form: str) -> list[float]:
    """The accuracy of each answer."""
    return [share[0] for share in one.shares(ACCURACY, form)]


def _repeated(scored: Sequence[ScoredProblem]) -> Iterable[tuple[str, dict[str, np.ndarray], int]]:
    """The shares of pass@k, for several k, and of the majority's answer, and how many problems they lack.

    The k of `pass@k` is the largest number of answers that a problem has; a problem with fewer scored ones than k is
    counted as failed in that pass@k.
    """
    most = max((len(one.answers) for one in scored), default=0)
    if not most:
        return
    for k in [*pass_at(most), None]:
        least = most if k is None else k
        enough = [one for one in scored if len(one.answers) >= least]
        rows = {form: [best_of(_accuracies(one, form), least) for one in enough] for form in FORMS}
        name = PASS_AT_ALL if k is None else f"pass@{k}"
        yield name, {form: _means(values) for form, values in rows.items()}, len(scored) - len(enough)
    answered = [one for one in scored if one.answers]
    votes = {form: [_majority(one, form) for one in answered] for form in FORMS}
    yield MAJORITY, {form: _means(values) for form, values in votes.items()}, len(scored) - len(answered)


def _majority(one: ScoredProblem, form: str) -> float:
    readings = [getattr(answer.readings, form) for answer in one.answers]
    chosen = majority([None if reading.answer is None else _vote(reading.answer) for reading in readings])
    return readings[chosen].accuracy


def _vote(text: str) -> str:
    return " ".join(text.casefold().split())


def _means(values: Sequence[float]) -> np.ndarray:
    return np.array([(value, 1.0) for value in values], dtype=np.float64).reshape(-1, 2)
