"""The samples of a data set -> a training file, through the filters that are asked for; every drop is counted.

The samples are read once and those that are kept wait in a file, so that a data set of any size takes the memory of
one sample and a few bytes for each.
"""

import logging
import pickle
import random
import tempfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from onethinker_jax.data_pipeline.media.media_file import MediaError
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.data_pipeline.sources.sample import Sample, SourceError
from onethinker_jax.data_pipeline.sources.training_set.mask_answers import mask_answer
from onethinker_jax.data_pipeline.sources.training_set.near_duplicates import NearDuplicates
from onethinker_jax.data_pipeline.sources.training_set.record_rows import RecordRows
from onethinker_jax.files import whole_file
from onethinker_jax.text_output import json_text

logger = logging.getLogger("onethinker_jax.data_pipeline.sources")

TOLD_EVERY = 10_000
"""Samples between two lines of progress."""


@dataclass(frozen=True)
class Filters:
    """What keeps a record out of the training file."""

    rates: Mapping[str, float] | None = None
    """Pass rates by problem; None: difficulty does not count."""
    low: float = 0.0
    """The least pass rate, and `high` the largest."""
    high: float = 1.0
    distance: int | None = None
    """See `NearDuplicates`; None: near-duplicates stay."""
    cap: int | None = None
    """Records a source at most; None: all."""
    seed: int = 0
    """Which records of a source stay under the cap."""


@dataclass
class Made:
    """What became of a data set's samples."""

    tasks: Counter[str] = field(default_factory=Counter)
    """Records in the file, by task."""
    sources: Counter[str] = field(default_factory=Counter)
    """Records in the file, by source."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Samples that are not, by the reason."""


def make(
    samples: Iterator[Sample], out: Path, filters: Filters, bad: BadRecords, *, absolute: bool = False
) -> Made:
    """Writes the file, a JSON list with a row a line; what the data set's reader left out is in `bad`.

    Raises SourceError: nothing is left. RecordError, MediaError: a row or its picture is bad and `bad` raises it.
    OSError: a file cannot be written.
    """
    made = Made()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as waiting:
        kept = _Kept(waiting)
        for record in _sieved(samples, filters, made.dropped, bad):
            kept.add(record)
        chosen = kept.chosen(filters.cap, filters.seed)
        if over := len(kept) - len(chosen):
            made.dropped["more than the cap of its source"] += over
        made.dropped.update(bad.left_out)
        if not chosen:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in made.dropped.most_common())
            raise SourceError(f"{out}: no record is left: {reasons}")
        rows = RecordRows(out, absolute=absolute)
        with whole_file(out) as aside, aside.open("w", encoding="utf-8") as file:
            for number, index in enumerate(chosen):
                record = kept[index]
                file.write(("[\n" if number == 0 else ",\n") + json_text(rows.row(record, _answer(record))))
                made.tasks[str(task_of(record))] += 1
                made.sources[record.data_source] += 1
            file.write("\n]\n")
    return made


def _answer(record: Record) -> str:
    return "" if record.answer or record.segmentation is None else mask_answer(record.segmentation)


def _sieved(
    samples: Iterator[Sample], filters: Filters, dropped: Counter[str], bad: BadRecords
) -> Iterator[Record]:
    """The records that no filter but the cap keeps out."""
    duplicates = None if filters.distance is None else NearDuplicates(filters.distance)
    for number, sample in enumerate(samples, start=1):
        if number % TOLD_EVERY == 0:
            logger.info("%s samples read", f"{number:,}")
        record = sample.record
        try:
            reason = _too_easy_or_hard(record, filters)
            if not reason and duplicates is not None and duplicates.seen(record):
                reason = "nearly the same question about nearly the same picture"
        except MediaError as error:
            bad.report(error, kind="a picture that cannot be read")
            continue
        if reason:
            dropped[reason] += 1
        else:
            yield record


def _too_easy_or_hard(record: Record, filters: Filters) -> str:
    if filters.rates is None:
        return ""
    rate = filters.rates.get(str(record.problem_id))
    if rate is None:
        return "no pass rate"
    if rate < filters.low:
        return f"pass rate below {filters.low:g}"
    return f"pass rate above {filters.high:g}" if rate > filters.high else ""


class _Kept:
    """Records that wait in a file for the choice among them."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._offsets = array("Q")
        self._of_source: dict[str, array[int]] = defaultdict(lambda: array("Q"))

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, record: Record) -> None:
        self._of_source[record.data_source].append(len(self))
        self._offsets.append(self._file.seek(0, 2))
        pickle.dump(record, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def __getitem__(self, index: int) -> Record:
        self._file.seek(self._offsets[index])
        return pickle.load(self._file)

    def chosen(self, cap: int | None, seed: int) -> list[int]:
        """At most `cap` records of each source, drawn by the seed and the source's name, in the order they came."""
        chosen: list[int] = []
        for source, indices in self._of_source.items():
            drawn = random.Random(f"{seed} {source}")
            chosen += indices if cap is None or len(indices) <= cap else drawn.sample(indices, cap)
        return sorted(chosen)
