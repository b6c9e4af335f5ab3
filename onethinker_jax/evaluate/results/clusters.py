"""Shares of problems -> the rows that a metric's value and its resamples are sums over, by the benchmark's rule.

A row is a cluster of what belongs together: a problem's answers, or the rotations of a question.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from onethinker_jax.evaluate.benchmarks.types import Rule
from onethinker_jax.evaluate.metrics.accuracy import METRIC as ACCURACY
from onethinker_jax.evaluate.metrics.shares import Share

META_TASK, SUBTASK = "l2-category", "category"
"""The groups that a mean of means is taken over."""
QUESTION = "g_index"
"""The fact that says which question a row is a rotation of."""


class Scored(Protocol):
    """A problem with its answers scored: just now, or read from scored.jsonl."""

    @property
    def groups(self) -> Mapping[str, str]:
        """What results are also given by."""
        ...

    @property
    def rotation_of(self) -> Any:
        """What the rotations of one question share, and no other problem has."""
        ...

    @property
    def video(self) -> str:
        """The first video; "" where there is none."""
        ...

    def shares(self, metric: str, form: str) -> Sequence[Share]:
        """What each answer adds to a form of a metric, those left out of the form aside."""
        ...

    def share(self, metric: str, form: str) -> Share | None:
        """Their mean over all answers; None where no answer has one."""
        ...


AnyScored = TypeVar("AnyScored", bound=Scored)


def rows_of(scored: Sequence[Scored], metric: str, form: str, rule: Rule = "mean") -> np.ndarray:
    """The rows of a form of a metric, float [clusters, K]: the standard form follows the benchmark's rule."""
    if form == "standard" and is_circular(metric, rule):
        rows = [row for rotations in questions(scored) if (row := _circular(rotations)) is not None]
    elif form == "standard" and rule in ("mean of means", "mean of videos"):
        rows = _mean_of_means(scored, metric, rule)
    else:
        rows = [share for one in scored if (share := one.share(metric, form)) is not None]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 2)


def is_circular(metric: str, rule: Rule) -> bool:
    """Whether the rows of the standard form are questions, each with all its rotations."""
    return rule == "circular" and metric == ACCURACY


def questions(scored: Sequence[AnyScored]) -> list[list[AnyScored]]:
    """The rotations of each question."""
    found: dict[Any, list[AnyScored]] = {}
    for one in scored:
        found.setdefault(one.rotation_of, []).append(one)
    return list(found.values())


def _circular(rotations: Sequence[Scored]) -> Share | None:
    """A question is right where all its rotations are; None where one of them is not scored."""
    values = [[share[0] for share in one.shares(ACCURACY, "standard")] for one in rotations]
    samples = min(map(len, values))
    if not samples:
        return None
    return sum(min(of_sample) for of_sample in zip(*values, strict=False)) / samples, 1.0


Place = tuple[str, ...]
"""The groups that a problem is in, the widest first."""


def _place(one: Scored, rule: Rule) -> Place:
    if rule == "mean of videos":
        return (one.video,)
    return one.groups.get(META_TASK, ""), one.groups.get(SUBTASK, "")


def _mean_of_means(scored: Sequence[Scored], metric: str, rule: Rule) -> list[Share]:
    """Shares whose weights make their ratio the mean over the widest groups of the means over those in them."""
    pairs = [(one, share) for one in scored if (share := one.share(metric, "standard")) is not None]
    places = [_place(one, rule) for one, _ in pairs]
    depth = len(places[0]) if places else 0
    within = [
        Counter(parts[:level] for parts in {place[: level + 1] for place in places}) for level in range(depth)
    ]
    sizes = Counter(places)
    rows = []
    for (_, share), place in zip(pairs, places, strict=True):
        parts = sizes[place] * math.prod(within[level][place[:level]] for level in range(depth))
        rows.append(tuple(number / parts for number in share))
    return rows
