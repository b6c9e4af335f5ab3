"""Examples of a stream's records in the order of the stream, made ahead of demand by threads."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.errors import SkippableError

Attempt = tuple[Record, Example] | tuple[Record | None, Exception]
"""A record with its example, or, where it could be read, with what is wrong with it."""


class OrderedExamples:
    """Examples of the records at given positions of a stream.

    Only when its turn comes is a bad record reported, or another error raised: threads do not change what is
    said. What raised stays first in line, so that it is raised again. Close it: it may have threads.
    """

    def __init__(
        self,
        positions: Iterator[int],
        at: Callable[[int], Record],
        make: Callable[[Record], Example],
        *,
        bad: BadRecords,
        size: int,
        workers: int,
        ahead: int,
        name: str,
    ):
        """Examples of `positions`, in their order.

        Args:
            positions: of the stream, in the order to go by; where they end, `next` may be called once for each.
            at: the record at a position; thread-safe.
            make: its example; thread-safe. MediaError, PackingError and RecordError mean a bad record.
            bad: where bad records are reported.
            size: how many records the stream draws from.
            workers: threads, and so examples made at once; 0: each is made in `next`.
            ahead: examples, made or under way, beyond those wanted; of no account without threads.
            name: of the threads.
        """
        self._positions, self._at, self._make = positions, at, make
        self._bad, self._size, self._bad_in_a_row = bad, size, 0
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name) if workers else None
        self._ahead = ahead
        self._coming: deque[tuple[int, Callable[[], Attempt]]] = deque()  # result: waits for it, or makes it

    def next(self, wanted: int = 1) -> tuple[int, tuple[Record, Example] | None]:
        """The next position with its record and example; None for a bad record, which was reported.

        `wanted`: how many are about to be asked for, this one included; their making begins now.

        Raises RecordError: more records in a row were bad than twice all there are. Whatever `bad` or `make` raise.
        """
        self._begin(wanted + self._ahead)
        position, result = self._coming[0]
        record, made = result()
        if isinstance(made, Exception):
            about = {}
            if record is not None:
                about = {"record": record.origin, "problem_id": record.problem_id, "problem": record.problem}
            self._bad.report(made, **about)
        self._coming.popleft()
        if record is not None and not isinstance(made, Exception):
            self._bad_in_a_row = 0
            return position, (record, made)
        self._bad_in_a_row += 1
        if self._bad_in_a_row > 2 * self._size:
            raise RecordError(f"none of {self._size} records can be used")
        return position, None

    def close(self) -> None:
        """Ends the threads, each after the example that it is making."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self, count: int) -> None:
        """Begins examples until `count` are made or under way; without threads it makes one."""
        if self._threads is None:
            if not self._coming:
                position = next(self._positions)
                self._coming.append((position, partial(self._attempt, position)))
            return
        while len(self._coming) < count:
            position = next(self._positions, None)
            if position is None:
                return
            self._coming.append((position, self._threads.submit(self._attempt, position).result))

    def _attempt(self, position: int) -> Attempt:
        record = None
        try:
            record = self._at(position)
            return record, self._make(record)
        except SkippableError as error:
            return record, error
