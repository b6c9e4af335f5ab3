"""Records in a seeded, endless order, and packed batches made from them beside the device's work.

Order comes from Grain's `MapDataset`, in which the n-th record is a function of (seed, n) alone. All
there is to remember is therefore a position, and for packing the positions of the examples read but not
yet placed: a stream restored from that continues exactly as the uninterrupted one.
"""

import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grain

from onethinker_jax.data_pipeline.bad_records import BadRecords, OnBadRecord
from onethinker_jax.data_pipeline.media import MediaError
from onethinker_jax.data_pipeline.packing import Batch, PackingError, check_fits, first_fit, pack_rows
from onethinker_jax.data_pipeline.processor import Example, Processor
from onethinker_jax.data_pipeline.records import Record, RecordError, task_of


class StreamError(ValueError):
    """A saved place in a stream that is not this one's. One line saying in what they differ."""


class RecordStream:
    """An endless, deterministic stream of records, reshuffled every epoch."""

    def __init__(
        self,
        records: Sequence[Record],
        *,
        seed: int,
        weights: Mapping[str, float] | None = None,
        bad: BadRecords | None = None,
    ):
        """
        Args:
            records: what to draw from; their order matters to the stream.
            seed: of the shuffles.
            weights: share of each task (as `task_of` names it) in the stream, relative to the others; 0 is
                to leave it out. Each task then has epochs of its own. Default: one epoch of all records.
            bad: where rollouts report a record whose media turn out to be bad; default: it is raised.

        Raises:
            ValueError: no records, a task without a weight, or a weight for a task that no record has.
        """
        if not records:
            raise ValueError("a stream needs at least one record")
        self._records, self._seed, self._position = records, seed, 0
        self.bad = bad or BadRecords()
        if weights is None:
            order = grain.MapDataset.range(len(records)).seed(seed).shuffle().repeat(None)
        else:
            order = _mixture([task_of(record) for record in records], seed, weights)
        self._order = order
        rows = [[str(record.problem_id), record.problem] for record in records]
        identity = json.dumps([rows, sorted((weights or {}).items())])
        self._checksum = zlib.crc32(identity.encode())

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return self.next()

    def next(self) -> Record:
        """The next record; there always is one."""
        record = self.at(self._position)
        self._position += 1
        return record

    def at(self, position: int) -> Record:
        """The record at a position of the stream, which does not move."""
        return self._records[int(self._order[position])]  # type: ignore[call-overload]

    @property
    def size(self) -> int:
        """How many records it draws from."""
        return len(self._records)

    @property
    def position(self) -> int:
        """How many records were taken."""
        return self._position

    def state(self) -> dict[str, int]:
        """What `restore` needs; can be written as JSON."""
        return {"position": self._position, "seed": self._seed, "checksum": self._checksum}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes to where the stream was when `state` was taken.

        Raises:
            StreamError: the state is of a stream with other records, weights or seed.
        """
        for name, value in (("seed", self._seed), ("checksum", self._checksum)):
            if state[name] != value:
                raise StreamError(
                    f"the saved stream had another {name} ({state[name]}, now {value}): have the records changed?"
                )
        self._position = int(state["position"])


def _mixture(tasks: list[str], seed: int, weights: Mapping[str, float]) -> grain.MapDataset:
    known = sorted(set(tasks))
    if missing := [task for task in known if task not in weights]:
        raise ValueError(f"no weight for {', '.join(missing)} (0 leaves a task out)")
    if unknown := [task for task in weights if task not in known]:
        raise ValueError(f"a weight for {', '.join(unknown)}, which no record has")
    drawn = [task for task in known if weights[task] > 0]
    if not drawn or any(weights[task] < 0 for task in known):
        raise ValueError("weights must be at least 0, and one above it")
    parts = []
    for number, task in enumerate(drawn):
        members = [index for index, name in enumerate(tasks) if name == task]
        part = grain.MapDataset.range(len(members)).seed(seed + number).shuffle().repeat(None)
        parts.append(part.map(members.__getitem__))
    return grain.MapDataset.mix(parts, weights=[float(weights[task]) for task in drawn])


class TrainingBatches:
    """Packed batches of training examples from a stream, endlessly, made in one background thread.

    A window of examples is kept ready; each batch takes, in stream order, those that fit (first fit), and
    the rest stay first in line. Errors of the thread are raised by `next`. Use it as a context manager or
    call `close`. The stream belongs to this object from then on.
    """

    def __init__(
        self,
        stream: RecordStream,
        processor: Processor,
        *,
        rows: int,
        tokens: int,
        patches: int,
        window: int = 64,
        prefetch: int = 2,
        on_bad_record: OnBadRecord = "raise",
        quarantine: str | Path | None = None,
    ):
        """
        Args:
            stream: of records that have messages.
            processor: turns them into examples; with `cache_bytes`, an epoch after the first is cheap.
            rows, tokens, patches: shape of the batches.
            window: examples to choose from; more of them fill the rows better.
            prefetch: batches made ahead of the consumer; 0 makes them in `next`, without a thread.
            on_bad_record: a record whose media cannot be decoded, or that is larger than a row, is raised;
                or skipped, logged, counted in `skipped` and written to the quarantine file.
            quarantine: JSON lines file, appended to; default: none is written.
        """
        if window < 1 or prefetch < 0:
            raise ValueError(
                f"window must be at least 1 and prefetch at least 0, got {window} and {prefetch}"
            )
        self._stream, self._processor = stream, processor
        self._shape = {"rows": rows, "tokens": tokens, "patches": patches}
        self._window, self._prefetch = window, prefetch
        self._bad = BadRecords(on_bad_record, quarantine)
        self._state: dict[str, Any] = {"stream": stream.state(), "pending": []}
        self._maker: Iterator[tuple[Batch, dict[str, Any]]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._coming: deque[Future] = deque()
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure is not None:
            raise self._failure
        if self._maker is None:
            self._maker = self._make(self._state)
        try:
            batch, self._state = self._take()
        except Exception as error:
            self._failure = error  # the maker is over: ask again, and the same is said again
            raise
        return batch

    @property
    def skipped(self) -> int:
        """How many bad records were left out so far; one met again is counted again."""
        return self._bad.count

    def state(self) -> dict[str, Any]:
        """The place after the last batch that was handed out; can be written as JSON."""
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        """The next batch will be the one that followed when `state` was taken.

        Raises:
            ValueError: the state is of a stream with other records, weights or seed.
        """
        self.close()
        self._stream.restore(state["stream"])
        self._state = {"stream": dict(state["stream"]), "pending": list(state["pending"])}
        self._failure = None

    def close(self) -> None:
        """Stops the thread and forgets the batches made ahead; `next` goes on after the last handed out."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._maker = None, None
        self._coming.clear()

    def __enter__(self) -> "TrainingBatches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self) -> tuple[Batch, dict[str, Any]]:
        assert self._maker is not None
        if self._prefetch == 0:
            return next(self._maker)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="training-batches")
        while len(self._coming) <= self._prefetch:
            self._coming.append(self._pool.submit(next, self._maker))
        result = self._coming[0].result()  # taken off only when it is here: an interrupt loses no batch
        self._coming.popleft()
        return result

    def _make(self, state: Mapping[str, Any]) -> Iterator[tuple[Batch, dict[str, Any]]]:
        self._stream.restore(state["stream"])
        pending = [(position, self._example(self._stream.at(position))) for position in state["pending"]]
        ready = [(position, example) for position, example in pending if example is not None]
        while True:
            failed = 0
            while len(ready) < self._window:
                position = self._stream.position
                example = self._example(self._stream.next())
                if example is not None:
                    ready.append((position, example))
                failed = 0 if example is not None else failed + 1
                if failed > 2 * self._stream.size:
                    raise RecordError(f"none of {self._stream.size} records can be used")
            sizes = [(len(example.tokens), len(example.patches)) for _, example in ready]
            _, left = first_fit(sizes, **self._shape)
            waiting = set(left)
            chosen = [example for number, (_, example) in enumerate(ready) if number not in waiting]
            ready = [ready[number] for number in left]
            batch, _ = pack_rows(chosen, **self._shape)
            yield batch, {"stream": self._stream.state(), "pending": [position for position, _ in ready]}

    def _example(self, record: Record) -> Example | None:
        """The record's example, or None if it is bad and may be skipped."""
        try:
            example = self._processor.training(record)
            try:
                check_fits(example, tokens=self._shape["tokens"], patches=self._shape["patches"])
            except PackingError as error:
                raise PackingError(f"record {record.problem_id}: {error}") from None
        except (MediaError, RecordError, PackingError) as error:
            self._bad.report(
                error, record=record.origin, problem_id=record.problem_id, problem=record.problem
            )
            return None
        return example
