"""What a corpus holds: records by task, modality and source, and the lengths of its texts and media."""

from array import array
from collections import Counter
from collections.abc import Iterator

import numpy as np
from rich.markup import escape
from rich.table import Table

from onethinker_jax.data_pipeline.check.inspection import MediaFacts
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.rewards.answers import unwrap_answer
from onethinker_jax.text_output import one_line

SOURCES_SHOWN = 30
_LENGTHS = (
    "problem, characters",
    "answer, characters",
    "last turn, characters",
    "media a record",
    "image height",
    "image width",
    "video, seconds",
    "frames sampled a video",
)


class CorpusCounts:
    """Grows record by record: a few bytes each."""

    def __init__(self) -> None:
        self.tasks: Counter[str] = Counter()
        self.modalities: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.lengths = {name: array("f") for name in _LENGTHS}
        self.repeated_ids = 0
        self._ids: set[int] = set()

    @property
    def records(self) -> int:
        """How many were added."""
        return self.tasks.total()

    def add(self, record: Record, facts: MediaFacts | None) -> None:
        """Counts one good record; `facts` are None where media were not looked at."""
        self.tasks[str(task_of(record))] += 1
        self.modalities[record.data_type] += 1
        self.sources[record.data_source or "(none)"] += 1
        if record.problem_id != "":
            identity = hash((record.problem_id, record.data_source))
            self.repeated_ids += identity in self._ids
            self._ids.add(identity)
        add = {name: values.append for name, values in self.lengths.items()}
        add["problem, characters"](len(record.problem))
        if record.answer:
            add["answer, characters"](len(unwrap_answer(record.answer)))
        if record.messages:
            add["last turn, characters"](len(record.messages[-1]["content"]))
        add["media a record"](len(record.images) + len(record.videos))
        if facts is not None:
            for height, width in facts.image_sizes:
                add["image height"](height)
                add["image width"](width)
            for seconds, frames in zip(facts.durations, facts.frames, strict=True):
                add["video, seconds"](seconds)
                add["frames sampled a video"](frames)

    def to_json(self) -> dict:
        """All counts; lengths as {"count", "mean", "median", "p95", "most"}."""
        return {
            "records": self.records,
            "repeated_ids": self.repeated_ids,
            "tasks": dict(self.tasks.most_common()),
            "modalities": dict(self.modalities.most_common()),
            "sources": dict(self.sources.most_common()),
            "lengths": {
                name: dict(zip(("count", "mean", "median", "p95", "most"), row, strict=True))
                for name, row in self._summaries()
            },
        }

    def tables(self) -> Iterator[Table]:
        """The counts as tables for the console."""
        for title, counter in (("task", self.tasks), ("modality", self.modalities), ("source", self.sources)):
            table = Table(title, "records", "share")
            for column in table.columns[1:]:
                column.justify = "right"
            for name, count in counter.most_common(SOURCES_SHOWN):
                table.add_row(escape(one_line(name)), f"{count:,}", f"{count / self.records:.1%}")
            if (rest := len(counter) - SOURCES_SHOWN) > 0:
                table.add_row(f"… and {rest} more", "", "")
            yield table
        table = Table("length", "count", "mean", "median", "95%", "most")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, (count, *values) in self._summaries():
            table.add_row(name, f"{count:,}", *(f"{value:,.1f}" for value in values))
        yield table

    def _summaries(self) -> Iterator[tuple[str, tuple[int, float, float, float, float]]]:
        for name, values in self.lengths.items():
            if values:
                median, p95 = np.percentile(values, [50, 95])
                summary = len(values), float(np.mean(values)), float(median), float(p95), float(max(values))
                yield name, summary
