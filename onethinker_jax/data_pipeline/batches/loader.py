"""Records in a seeded, endless order, and packed batches made from them beside the device's work.

Order comes from Grain's `MapDataset`, in which the n-th record is a function of (seed, n) alone. All
there is to remember is therefore a position, and for packing the positions of the examples read but not
yet packed: a stream restored from that continues exactly as the uninterrupted one, however many threads
and processes work on it.
"""

import itertools
import zlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.batches.bin_packing import (
    STRATEGIES,
    BatchShape,
    PackingError,
    PackingStrategy,
)
from onethinker_jax.data_pipeline.batches.mixture import Mixture, stream_order
from onethinker_jax.data_pipeline.batches.ordered_examples import OrderedExamples
from onethinker_jax.data_pipeline.batches.packing import Batch, check_fits, pack_assigned
from onethinker_jax.data_pipeline.processor.processor import Example, Processor
from onethinker_jax.data_pipeline.records.bad_records import BadRecords, OnBadRecord
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.record_table import table_of
from onethinker_jax.errors import UserError


class StreamError(UserError, ValueError):
    """A saved position belongs to another stream than this one. The error is one line that says in what they differ."""


class RecordStream:
    """An endless, deterministic stream of records, reshuffled every epoch.

    With several hosts it is one stream dealt out in turn: host i has every n-th record from the i-th. In an
    epoch no record comes to two hosts, and all records come to one.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        seed: int,
        mixture: Mixture | None = None,
        host: int = 0,
        hosts: int = 1,
        bad: BadRecords | None = None,
    ):
        """The stream at its first record.

        Args:
            records: what to draw from; their order matters to the stream.
            seed: of the shuffles.
            mixture: weights of tasks and sources; default: all records equally often.
            host: the number of this host, from 0.
            hosts: how many there are.
            bad: where rollouts report a record whose media turn out to be bad; default: it is raised.

        Raises ValueError: no records, a weight for what no record has, no weight above 0, or no such host.
        """
        if not records:
            raise ValueError("a stream needs at least one record")
        if not 0 <= host < hosts:
            raise ValueError(f"host {host} is not one of {hosts}")
        mixture, table = mixture or Mixture(), table_of(records)
        self._records, self._position = records, 0
        self._order = stream_order(table, seed, mixture)
        self._host, self._hosts = host, hosts
        self.bad = bad or BadRecords()
        self.size = int(np.count_nonzero(mixture.weights(table)))
        """How many records it draws from."""
        weights = repr([sorted(mixture.tasks.items()), sorted(mixture.sources.items())])
        self._identity = {
            "seed": seed,
            "records": table.checksum,
            "mixture": zlib.crc32(weights.encode()),
            "host": host,
            "hosts": hosts,
        }

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
        """The record at a position of the stream, which does not move. Thread-safe.

        Raises RecordError: the record's file or media are no longer as they were.
        """
        number = self._order[self.number(position)]
        return self._records[int(number)]  # type: ignore[call-overload]

    def number(self, position: int) -> int:
        """The number in the order of all hosts that a position of this host's part has."""
        return position * self._hosts + self._host

    @property
    def position(self) -> int:
        """How many records were taken."""
        return self._position

    def state(self) -> dict[str, int]:
        """What `restore` needs; can be written as JSON."""
        return {"position": self._position, **self._identity}

    def restore(self, state: Mapping[str, int]) -> None:
        """Goes to where the stream was when `state` was taken.

        Raises StreamError: the state is of a stream with other records, weights, seed or hosts.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise StreamError(
                    f"the saved stream had another {name} ({state.get(name)}, now {value}): have the data changed?"
                )
        self._position = int(state["position"])


class TrainingBatches:
    """Packed batches of training examples from a stream, endlessly, made in a background thread.

    A window of examples is kept ready; each batch takes some of them, and the rest stay first in line. Errors
    of the thread are raised by `next`. Use it as a context manager or call `close`. The stream belongs to this
    object from then on.
    """

    def __init__(
        self,
        stream: RecordStream,
        processor: Processor,
        shape: BatchShape,
        *,
        strategy: PackingStrategy = "first_fit",
        window: int = 64,
        prefetch: int = 2,
        workers: int = 0,
        on_bad_record: OnBadRecord = "raise",
        quarantine: str | Path | None = None,
    ):
        """Batches from where `stream` stands.

        Args:
            stream: of records that have messages.
            processor: turns them into examples; with `cache_bytes`, an epoch after the first is cheap.
            shape: of the batches.
            strategy: how a batch is chosen from the window, see `bin_packing`.
            window: examples to choose from; more of them raise the packing efficiency.
            prefetch: batches made ahead of the consumer; 0 makes them in `next`, without a thread.
            workers: examples made at once; 0: one at a time. As many as the processor's media are decoded
                in processes. The batches are the same.
            on_bad_record: a record whose media cannot be decoded, or that is larger than a row, is raised;
                or skipped, logged, counted in `skipped` and written to the quarantine file.
            quarantine: JSON lines file, appended to; default: none is written.
        """
        if window < 1 or prefetch < 0 or workers < 0:
            raise ValueError(
                f"window must be at least 1, prefetch and workers at least 0, got {window}, {prefetch}, {workers}"
            )
        self._stream, self._processor = stream, processor
        self._shape = {"rows": shape.rows, "tokens": shape.tokens, "patches": shape.patches}
        self._pack, self._window = STRATEGIES[strategy], window
        self._prefetch, self._workers = prefetch, workers
        self._bad = BadRecords(on_bad_record, quarantine)
        self._state: dict[str, Any] = {"stream": stream.state(), "pending": []}
        self._maker: Generator[tuple[Batch, dict[str, Any]], None, None] | None = None
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
        """The position after the last batch that was handed out; can be written as JSON."""
        return self._state

    def restore(self, state: Mapping[str, Any]) -> None:
        """The next batch will be the one that followed when `state` was taken.

        Raises StreamError: the state is of a stream with other records, weights, seed or hosts.
        """
        self.close()
        self._stream.restore(state["stream"])
        self._state = {"stream": dict(state["stream"]), "pending": list(state["pending"])}
        self._failure = None

    def records(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Record]:
        """The records of the batches between two states, in the order of the stream; bad ones that were skipped too."""
        taken = {*before["pending"], *range(before["stream"]["position"], after["stream"]["position"])}
        return [self._stream.at(turn) for turn in sorted(taken - set(after["pending"]))]

    def close(self) -> None:
        """Stops the threads and forgets the batches made ahead; `next` goes on after the last handed out."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if self._maker is not None:
            self._maker.close()
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

    def _make(self, state: Mapping[str, Any]) -> Generator[tuple[Batch, dict[str, Any]], None, None]:
        pending, position = state["pending"], state["stream"]["position"]
        examples = OrderedExamples(
            itertools.chain(pending, itertools.count(position)),
            self._stream.at,
            self._training,
            bad=self._bad,
            size=self._stream.size,
            workers=self._workers,
            ahead=2 * self._workers,
            name="training-batches-example",
        )
        with closing(examples):
            ready: list[tuple[int, Example]] = []
            for _ in pending:
                turn, made = examples.next()
                if made is not None:
                    ready.append((turn, made[1]))
            while True:
                while len(ready) < self._window:
                    turn, made = examples.next()
                    position = turn + 1
                    if made is not None:
                        ready.append((turn, made[1]))
                window = [example for _, example in ready]
                sizes = [(len(example.tokens), len(example.patches)) for example in window]
                assigned, left = self._pack(sizes, **self._shape)
                batch = pack_assigned(window, assigned, **self._shape)
                ready = [ready[number] for number in left]
                stream = {**state["stream"], "position": position}
                yield batch, {"stream": stream, "pending": [turn for turn, _ in ready]}

    def _training(self, record: Record) -> Example:
        """The record's training example; raises PackingError naming the record when a row is too small for it."""
        example = self._processor.training(record)
        try:
            check_fits(example, tokens=self._shape["tokens"], patches=self._shape["patches"])
        except PackingError as error:
            raise PackingError(f"{record}: {error}") from None
        return example
