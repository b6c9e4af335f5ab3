"""Totals of a benchmark: each metric's value in both forms with an interval, over all problems and by groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onethinker_jax.evaluate.benchmarks.task_metrics import METRICS
from onethinker_jax.evaluate.benchmarks.types import Rule
from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.accuracy import METRIC as ACCURACY
from onethinker_jax.evaluate.metrics.shares import FORMS, Value, ratio
from onethinker_jax.evaluate.results.intervals import RESAMPLES, bootstrap
from onethinker_jax.evaluate.results.repeated import best_of, majority, pass_at
from onethinker_jax.evaluate.results.scored import ScoredProblem

PASS_AT_ALL, MAJORITY = "pass@k", "majority"
GROUP_RESAMPLES = 1_000
"""Of the interval of a group: there may be hundreds of groups."""

META_TASK, SUBTASK = "l2-category", "category"
"""The groups that a mean of means is taken over."""
QUESTION = "g_index"
"""The fact that says which question a row is a rotation of."""


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
        having = [one for one in scored if metric in METRICS[one.task]]
        failed = sum(all(one.share(metric, form) is None for form in FORMS) for one in having)
        shares = {form: _shares(having, metric, form) for form in FORMS}
        if rule == "circular" and metric == ACCURACY:
            shares["standard"], failed = _circular(having)
        elif rule in _PLACES:
            shares["standard"] = _mean_of_means(having, metric, _PLACES[rule])
        found[metric] = total(shares, table.value_of(metric), failed=failed, seed=seed, resamples=resamples)
    if ACCURACY in found and any(len(one.problem.lines) > 1 for one in scored):
        having = [one for one in scored if ACCURACY in METRICS[one.task]]
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


def _shares(scored: Sequence[ScoredProblem], metric: str, form: str) -> np.ndarray:
    """The shares of the problems that have one, averaged over their answers: float [N, K]."""
    rows = [share for one in scored if (share := one.share(metric, form)) is not None]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 2)


def _accuracies(one: ScoredProblem, form: str) -> list[float]:
    """The accuracy of each answer."""
    shares = [getattr(answer.measured[ACCURACY], form) for answer in one.answers]
    return [share[0] for share in shares if share is not None]


def _circular(scored: Sequence[ScoredProblem]) -> tuple[np.ndarray, int]:
    """A question is right where all its rotations are; how many failed, since one of theirs is not scored."""
    questions: dict[Any, list[ScoredProblem]] = {}
    for one in scored:
        key = one.sample.facts.get(QUESTION, one.sample.record.problem_id)
        questions.setdefault(key, []).append(one)
    rows, failed = [], 0
    for rotations in questions.values():
        values = [_accuracies(one, "standard") for one in rotations]
        samples = min(map(len, values))
        if samples:
            rows.append((sum(min(of_sample) for of_sample in zip(*values, strict=False)) / samples, 1.0))
        else:
            failed += 1
    return np.array(rows, dtype=np.float64).reshape(-1, 2), failed


Place = tuple[str, ...]
"""The groups that a problem is in, the widest first."""


def _subtask(one: ScoredProblem) -> Place:
    groups = one.sample.groups
    return groups.get(META_TASK, ""), groups.get(SUBTASK, "")


def _video(one: ScoredProblem) -> Place:
    record = one.sample.record
    return (str(next(iter(record.videos), "")),)


_PLACES: dict[Rule, Callable[[ScoredProblem], Place]] = {
    "mean of means": _subtask,
    "mean of videos": _video,
}


def _mean_of_means(
    scored: Sequence[ScoredProblem], metric: str, place_of: Callable[[ScoredProblem], Place]
) -> np.ndarray:
    """Shares whose weights make their ratio the mean over the widest groups of the means over those in them."""
    pairs = [(one, share) for one in scored if (share := one.share(metric, "standard")) is not None]
    places = [place_of(one) for one, _ in pairs]
    depth = len(places[0]) if places else 0
    within = [
        Counter(parts[:level] for parts in {place[: level + 1] for place in places}) for level in range(depth)
    ]
    sizes = Counter(places)
    rows = []
    for (_, share), place in zip(pairs, places, strict=True):
        parts = sizes[place] * math.prod(within[level][place[:level]] for level in range(depth))
        rows.append(tuple(number / parts for number in share))
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 2)


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
