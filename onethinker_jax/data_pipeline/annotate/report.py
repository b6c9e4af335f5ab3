"""What became of the records of an annotation run: counts by task and reason, accuracies, a few examples."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.table import Table

from onethinker_jax.data_pipeline.annotate.filters import KEPT, Judged
from onethinker_jax.data_pipeline.records.record import task_of

BINS = 20
"""The bins of a histogram of accuracies, from 0 to 1."""


@dataclass(frozen=True)
class Histogram:
    """Candidates by accuracy: kept as far as the checks go, and not."""

    kept: list[int] = field(default_factory=lambda: [0] * BINS)
    dropped: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, accuracy: float, kept: bool) -> None:
        """Counts one candidate of this accuracy, a share of the most that its task gives."""
        bins = self.kept if kept else self.dropped
        bins[min(int(accuracy * BINS + 1e-9), BINS - 1)] += 1


class AnnotationReport:
    """Grows record by record. `outcomes` counts records, `candidates` their answers: task -> reason -> number."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.candidates: dict[str, Counter[str]] = defaultdict(Counter)
        self.histograms: dict[str, Histogram] = defaultdict(Histogram)
        self.thresholds: dict[str, float] = {}
        self._examples: dict[tuple[str, str], Judged] = {}
        self._random = random.Random(0)

    def add(self, judged: Judged, threshold: float) -> None:
        """A record with its candidates, and the threshold of its task."""
        task, reason = str(task_of(judged.record)), judged.reason
        self.outcomes[task][reason] += 1
        self.thresholds[task] = threshold
        for one in judged.verdicts:
            self.candidates[task][one.reason] += 1
            if one.accuracy is not None:
                self.histograms[task].add(one.accuracy, one.reason == KEPT)
        if not self._random.randrange(self.outcomes[task][reason]):  # each as likely as another
            self._examples[task, reason] = judged

    def balance(self, chosen: Mapping[str, int]) -> None:
        """So many of each task's good records went into the balanced set."""
        for task, count in chosen.items():
            self.outcomes[task]["balance"] = self.outcomes[task][KEPT] - count
            self.outcomes[task][KEPT] = count

    @property
    def records(self) -> int:
        """How many records were judged."""
        return sum(counts.total() for counts in self.outcomes.values())

    @property
    def kept(self) -> int:
        """How many records gave the set a row."""
        return sum(counts[KEPT] for counts in self.outcomes.values())

    @property
    def good(self) -> int:
        """Records with an answer that no check found an error in, whether kept or beyond a cap."""
        return sum(map(good_ones, self.outcomes.values()))

    def totals(self, counts: Mapping[str, Counter[str]]) -> Counter[str]:
        """Over all tasks."""
        return sum(counts.values(), Counter())

    def examples(self, task: str, dropped: int) -> list[Judged]:
        """One kept record of a task, and one for each of its most frequent reasons to drop."""
        reasons = [
            reason for reason, _ in self.outcomes[task].most_common() if reason not in (KEPT, "balance")
        ]
        shown = [KEPT, *reasons[:dropped]]
        return [self._examples[task, reason] for reason in shown if (task, reason) in self._examples]

    def to_json(self) -> dict:
        """All counts; kept records under "kept"."""

        def named(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
            return {
                task: {reason or "kept": number for reason, number in counter.most_common() if number}
                for task, counter in sorted(counts.items())
            }

        return {"records": named(self.outcomes), "candidates": named(self.candidates)}

    def table(self) -> Table:
        """The counts for the console."""
        table = Table("task", "records", "good", "share", "kept", "dropped, most often for")
        for column in table.columns[1:5]:
            column.justify = "right"
        for task, counts in [*sorted(self.outcomes.items()), ("all tasks", self.totals(self.outcomes))]:
            if task == "all tasks":
                table.add_section()
            total, good = counts.total(), good_ones(counts)
            share = f"{good / max(total, 1):.0%}"
            table.add_row(
                task, f"{total:,}", f"{good:,}", share, f"{counts[KEPT]:,}", dropped_text(counts, 3)
            )
        return table


def good_ones(counts: Counter[str]) -> int:
    """Kept or beyond a cap."""
    return counts[KEPT] + counts["balance"]


def dropped_text(counts: Counter[str], most: int | None = None) -> str:
    """The most frequent reasons, caps aside, with their numbers: "accuracy 12, tags 3"."""
    dropped = [
        f"{reason} {count:,}"
        for reason, count in counts.most_common()
        if count and reason not in (KEPT, "balance")
    ]
    return ", ".join(dropped[:most])
