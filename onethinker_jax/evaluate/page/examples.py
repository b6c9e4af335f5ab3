"""Which problems a page shows: best and worst answers, random and failed ones, and those that differ in two runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from onethinker_jax.evaluate.results.kept import KeptBenchmark, KeptProblem, Row

GRADED = ("accuracy", "mIoU", "vIoU", "AO", "gIoU", "J&F", "ROUGE-L")
"""The metrics that say how good one answer is; the first that its benchmark and task have counts."""
RIGHT = 0.5
"""The least value of an answer that is called right."""
KINDS = ("worse", "better", "worst", "best", "random", "failed")
"""In the order in which they get their pictures."""


@dataclass(frozen=True, eq=False)
class Example:
    """A problem as the runs answered it."""

    benchmark: str
    problem_id: str
    problems: tuple[KeptProblem | None, ...]
    """A run each; None: the run does not have it."""
    kinds: tuple[str, ...]
    """Why it is shown."""

    @property
    def head(self) -> Row:
        """A line that holds the question."""
        return next(one for one in self.problems if one is not None).rows[0]


def graded(benchmark: KeptBenchmark, values: Mapping[str, Mapping[str, Any]]) -> tuple[str, float] | None:
    """The metric that says how good an answer is, and its value: the standard form where there is one."""
    for metric in GRADED:
        forms = values.get(metric, {}) if metric in benchmark.metrics else {}
        for form in ("standard", "released"):
            if (value := forms.get(form)) is not None:
                return metric, float(value)
    return None


def value_of(benchmark: KeptBenchmark, problem: KeptProblem | None) -> float | None:
    """The mean value of a problem's answers; None where none is measured."""
    if problem is None:
        return None
    found = [pair[1] for row in problem.answers if (pair := graded(benchmark, row["values"]))]
    return sum(found) / len(found) if found else None


def choose(runs: Sequence[KeptBenchmark], count: int, *, seed: int = 0) -> list[Example]:
    """The examples of a benchmark that one or two runs answered: `count` of each kind and task.

    The same every time. A problem that is of several kinds is there once.
    """
    identities = list(dict.fromkeys(chain.from_iterable(run.problems for run in runs)))
    random.Random(f"{seed} {runs[0].name}").shuffle(identities)
    problems = {identity: tuple(run.problems.get(identity) for run in runs) for identity in identities}
    values = {
        identity: [value_of(run, one) for run, one in zip(runs, found, strict=True)]
        for identity, found in problems.items()
    }
    answered = {
        identity: sum(known) / len(known)
        for identity, of_runs in values.items()
        if (known := [value for value in of_runs if value is not None])
    }
    gains = {
        identity: of_runs[1] - of_runs[0]
        for identity, of_runs in values.items()
        if len(of_runs) == 2 and of_runs[0] is not None and of_runs[1] is not None
    }
    failed = [
        identity
        for identity, found in problems.items()
        if any(one is not None and not one.answers for one in found)
    ]
    of_kind: dict[str, list[str]] = {
        "worse": sorted((one for one in gains if gains[one] < 0), key=lambda one: gains[one]),
        "better": sorted((one for one in gains if gains[one] > 0), key=lambda one: -gains[one]),
        "worst": sorted((one for one in answered if answered[one] < 1), key=lambda one: answered[one]),
        "best": sorted((one for one in answered if answered[one] > 0), key=lambda one: -answered[one]),
        "random": [one for one in identities if one in answered],
        "failed": failed,
    }

    def task_of(identity: str) -> str:
        return next(one for one in problems[identity] if one is not None).rows[0]["task"]

    chosen: dict[str, list[str]] = {}
    turns = [[(kind, one) for one in by_turns(of_kind[kind], task_of, count)] for kind in KINDS]
    for turn in zip_longest(*turns):  # so that each kind gets its share of the pictures
        for kind, identity in filter(None, turn):
            chosen.setdefault(identity, []).append(kind)
    return [
        Example(runs[0].name, identity, problems[identity], tuple(kinds))
        for identity, kinds in chosen.items()
    ]


def by_turns(identities: Sequence[str], task_of: Callable[[str], str], count: int) -> list[str]:
    """The first `count` of each task, one of each task after the other."""
    tasks: dict[str, list[str]] = {}
    for identity in identities:
        tasks.setdefault(task_of(identity), []).append(identity)
    return [
        one
        for turn in zip_longest(*(of_task[:count] for of_task in tasks.values()))
        for one in turn
        if one is not None
    ]
