"""Lines of results -> numbers with 95% intervals over seeds, and the tables of docs/results.md.

A seed's runs under two arms have the same order of prompts, the same SFT model and the same held-out records, so arms
are compared by their differences seed by seed: the mean of n differences ± t(0.975, n - 1) standard errors. An interval
is of RL's own chance (order of prompts, samples) and of these records; another SFT model or other records may give
another mean. The SFT model itself, `none`, is one value, the same for every seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.arms import ARMS, BASELINE, FAMILIES, METHODS, family_of
from experiments.result_lines import ResultsError, read_lines
from onethinker_jax.evaluate.results.intervals import bootstrap

Answers = Literal["greedy", "sampled"]
Measure = Literal["accuracy", "reward", "format"]
_COLUMNS: Mapping[str, int] = {"accuracy": 1, "reward": 2, "format": 3}

OURS = METHODS[0]
"""The arm that the others are compared with, and whose settings are swept."""
ALL = "all records"
MEAN = "mean of families"
Group = str | Sequence[str]
"""A task, a family, ALL, MEAN, or several tasks together."""
GROUPS = (*FAMILIES, MEAN, ALL)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, half of its 95% interval (None for one seed), and the number of seeds."""

    mean: float
    half: float | None
    count: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.half is not None and abs(self.mean) > max(self.half, 1e-9)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of n values ± t(0.975, n - 1) s / sqrt(n); raises ValueError without any."""
    from scipy.stats import t

    if not len(values):
        raise ValueError("no values to estimate a mean from")
    n, mean = len(values), float(np.mean(values))
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / sqrt(n)) if n > 1 else None
    return Estimate(mean, half, n)


@dataclass(frozen=True)
class Key:
    """What the runs of an arm share but for the seed; `learning_rate` None is the study's own."""

    arm: str
    mixture: str = "mixed"
    learning_rate: float | None = None


class Results:
    """The lines of one study, all from one SFT model on the same held-out records."""

    def __init__(self, lines: Sequence[dict[str, Any]], name: str = "results"):
        """`name` is the file's, for errors. Raises ResultsError without a line of the SFT model."""
        start = next((line for line in lines if line["arm"] == BASELINE), None)
        if start is None:
            raise ResultsError(f"{name}: holds no line {BASELINE!r}, of the SFT model")
        self.name, self.start = name, start
        self.runs: dict[Key, dict[int, dict[str, Any]]] = {}
        for line in lines:
            if line is not start:
                rate = line["learning_rate"]
                rate = None if rate == start["learning_rate"] else rate
                of_seeds = self.runs.setdefault(Key(line["arm"], line["mixture"], rate), {})
                of_seeds[line["seed"]] = line

    @classmethod
    def read(cls, file: Path) -> "Results":
        """The study in this file; raises ResultsError."""
        return cls(read_lines(file), file.name)

    @cached_property
    def tasks(self) -> list[str]:
        """The held-out tasks."""
        return list(self.start["heldout"]["greedy"])

    @cached_property
    def families(self) -> list[str]:
        """The families that the held-out tasks are of."""
        found = {family_of(task) for task in self.tasks}
        return [family for family in FAMILIES if family in found]

    def arms(self, mixture: str = "mixed", among: Sequence[str] = tuple(ARMS)) -> list[str]:
        """Those arms that have runs with this mixture."""
        return [arm for arm in among if Key(arm, mixture) in self.runs]

    def values(
        self, key: Key, group: Group, measure: Measure = "accuracy", answers: Answers = "greedy"
    ) -> dict[int, float]:
        """Seed -> the mean over a group of held-out records."""
        return {
            seed: group_mean(line["heldout"][answers], group, measure)
            for seed, line in self.runs.get(key, {}).items()
        }

    def before(self, group: Group, measure: Measure = "accuracy", answers: Answers = "greedy") -> float:
        """The SFT model's mean over a group."""
        return group_mean(self.start["heldout"][answers], group, measure)

    def gain(
        self, key: Key, group: Group, measure: Measure = "accuracy", answers: Answers = "greedy"
    ) -> Estimate:
        """What RL changed: an arm minus the SFT model."""
        start = self.before(group, measure, answers)
        return estimate([value - start for value in self.values(key, group, measure, answers).values()])

    def difference(
        self, a: Key, b: Key, group: Group, measure: Measure = "accuracy", answers: Answers = "greedy"
    ) -> Estimate | None:
        """A minus B over the seeds that both have; None where they share none."""
        if b.arm == BASELINE:
            return self.gain(a, group, measure, answers)
        of_a, of_b = (self.values(key, group, measure, answers) for key in (a, b))
        shared = sorted(of_a.keys() & of_b.keys())
        return estimate([of_a[seed] - of_b[seed] for seed in shared]) if shared else None

    def over_records(self, a: Key, b: Key, group: str) -> tuple[float, float, float] | None:
        """A minus B of greedy accuracy over the seeds that both have, and its interval were other records drawn.

        The records of a group are resampled, each with its mean difference over seeds (95% percentile bootstrap), so
        that the seeds stay as they are. None where they share no seed.
        """
        of_a, of_b = (self.runs.get(key, {}) for key in (a, b))
        shared = sorted(of_a.keys() if b.arm == BASELINE else of_a.keys() & of_b.keys())
        if not shared:
            return None
        differences = np.mean(
            [
                record_accuracies(of_a[seed], group)
                - record_accuracies(self.start if b.arm == BASELINE else of_b[seed], group)
                for seed in shared
            ],
            axis=0,
        )
        low, high = bootstrap(np.stack([differences, np.ones_like(differences)], axis=-1))
        return float(differences.mean()), low, high


def record_accuracies(line: Mapping[str, Any], group: str) -> np.ndarray:
    """float64 [records]: the greedy accuracy of each record of a task, a family or all."""
    rows = [row for task, row in line["records"].items() if group in (ALL, task, family_of(task))]
    if not rows:
        raise ResultsError(f"no held-out records of {group}")
    return np.concatenate(rows) / 100


def group_mean(tasks: Mapping[str, Sequence[float]], group: Group, measure: Measure) -> float:
    """The mean over the records of a task, several, a family or all, or the mean of the families' means.

    `tasks` is a line's {task: [records, accuracy, reward, format]}.
    """
    column = _COLUMNS[measure]
    if group == MEAN:
        families = sorted({family_of(task) for task in tasks})
        return float(np.mean([group_mean(tasks, family, measure) for family in families]))
    wanted = {group} if isinstance(group, str) else set(group)
    rows = [row for task, row in tasks.items() if wanted & {ALL, task, family_of(task)}]
    if not rows:
        raise ResultsError(f"no held-out records of {', '.join(sorted(wanted))}")
    return sum(row[0] * row[column] for row in rows) / sum(row[0] for row in rows)


def curve(results: Results, key: Key, name: str) -> np.ndarray:
    """float64 [seeds, steps] of a curve, NaN where there is no number; seeds of fewest steps decide their number."""
    found = [line["curves"][name] for line in results.runs.get(key, {}).values() if name in line["curves"]]
    steps = min((len(values) for values in found), default=0)
    return np.array([values[:steps] for values in found], np.float64)
