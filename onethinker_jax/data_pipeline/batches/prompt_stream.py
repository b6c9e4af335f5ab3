"""The prompts of a stream's records, made beside the device's work: what `TrainingBatches` is for RL."""

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.ordered_examples import OrderedExamples
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.records.record import Record


class PromptStream:
    """Prompts in the order of the stream, without end; bad records are left out or raised as `stream.bad` says.

    Between two calls of `next` the coming prompts are made by threads, `ahead` of them at most. They are no part
    of the state: after `restore` or `close` they are made again. Not thread-safe; use it as a context manager or
    call `close`. The stream belongs to this object from then on.
    """

    def __init__(
        self,
        stream: RecordStream,
        make: Callable[[Record], Example],
        *,
        workers: int = 0,
        ahead: int = 0,
    ):
        """Prompts from where `stream` stands.

        Args:
            stream: of records.
            make: a record's prompt; thread-safe. MediaError, PackingError and RecordError mean a bad record.
            workers: prompts made at once. As many as the processor's media are decoded in processes; with 0
                there is one thread nevertheless if any are to be made ahead. The prompts are the same.
            ahead: prompts that are kept, made or under way, beyond those asked for. Bounds the memory.

        Raises ValueError: workers or ahead below 0.
        """
        if workers < 0 or ahead < 0:
            raise ValueError(f"workers and ahead must be at least 0, got {workers}, {ahead}")
        self._stream, self._make = stream, make
        self._workers, self._ahead = workers or min(ahead, 1), ahead
        self._position = stream.position
        self._pending: deque[int] = deque()  # earlier positions that are still to be handed out
        self._examples: OrderedExamples | None = None

    def next(self, wanted: int = 1) -> tuple[int, Record, Example]:
        """Position in the stream, record and prompt of the next record that is not bad.

        `wanted`: how many are about to be asked for, this one included; their making begins now.

        Raises MediaError, PackingError, RecordError: the record is bad and not to be skipped, or all records are
        bad. Whatever else `make` raises. Each at the turn of its record, and again if asked again.
        """
        if self._examples is None:
            self._examples = OrderedExamples(
                itertools.chain(tuple(self._pending), itertools.count(self._position)),
                self._stream.at,
                self._make,
                bad=self._stream.bad,
                size=self._stream.size,
                workers=self._workers,
                ahead=self._ahead,
                name="prompts",
            )
        while True:
            position, made = self._examples.next(wanted)
            if self._pending:
                self._pending.popleft()
            elif made is not None:
                self._position = position + 1
            if made is not None:
                return position, *made

    def state(self) -> dict[str, Any]:
        """The position after the last prompt that was handed out, and earlier ones that are pending; as JSON holds it.

        Positions are pending only after a restart with another number of hosts (`redealing.py`).
        """
        return {**self._stream.state(), "position": self._position, "pending": list(self._pending)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The next prompt will be the one that followed when `state` was taken.

        Raises StreamError: the state is of a stream with other records, weights, seed or hosts.
        """
        self.close()
        self._stream.restore(state)
        self._position = self._stream.position
        self._pending = deque(state.get("pending", ()))

    def close(self) -> None:
        """Ends the threads and forgets the prompts made ahead; `next` goes on after the last handed out."""
        if self._examples is not None:
            self._examples.close()
        self._examples = None

    def __enter__(self) -> "PromptStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
