"""Dynamic batching: items of many callers wait in one queue, and each replica of a back end takes them in batches.

A batch is taken when it is full or when its oldest item has waited long enough. While every replica is busy,
batches fill by themselves, so that the wait only costs something where there is little to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from onethinker_jax.rewards.backends.types import ItemError

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """There is no room for the items; names the queue."""


@dataclass
class _Job(Generic[Item, Result]):
    item: Item
    future: Future[Result] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class BatchingQueue(Generic[Item, Result]):
    """Runs items in batches of up to `max_batch`, each replica on a thread of its own.

    `replicas` are functions that make a replica on its thread: a function of a batch that returns one result
    an item, or the error of an item that fails while the others do not. `ready` has a future a replica, done once
    it is made. Where a batch raises, its items run again one by one: only those that raise alone get the error.
    An item whose future is cancelled before its batch is taken never runs. `on_batch(items, dropped, seconds)` is
    told of every batch, and of dropped items that a submission finds first. The threads are daemons: a back end
    that never returns does not keep the process.
    """

    def __init__(
        self,
        name: str,
        replicas: Sequence[Callable[[], Callable[[Sequence[Item]], Sequence[Result | Exception]]]],
        *,
        max_batch: int,
        max_wait_s: float,
        max_waiting: int,
        on_batch: Callable[[int, int, float], None] = lambda items, dropped, seconds: None,
    ) -> None:
        self.name, self.max_batch, self.max_wait_s, self.max_waiting = (
            name,
            max_batch,
            max_wait_s,
            max_waiting,
        )
        self.ready: list[Future[None]] = [Future() for _ in replicas]
        self._on_batch = on_batch
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy_since: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(number, make), name=f"{name}-{number}", daemon=True)
            for number, make in enumerate(replicas)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Sequence[Item]) -> list[Future[Result]]:
        """A future an item. All are queued or none: raises QueueFull."""
        jobs = [_Job[Item, Result](item) for item in items]
        with self._changed:
            left = deque(job for job in self._jobs if not job.future.cancelled())
            if dropped := len(self._jobs) - len(left):  # they hold frames, and places
                self._jobs = left
                self._on_batch(0, dropped, 0.0)
            if len(self._jobs) + len(jobs) > self.max_waiting:
                waiting = f"{len(self._jobs)} of {self.max_waiting} places are taken"
                raise QueueFull(f"the {self.name} queue has no room for {len(jobs)} items: {waiting}")
            self._jobs.extend(jobs)
            self._changed.notify_all()
        return [job.future for job in jobs]

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._jobs)

    def busy_s(self) -> float:
        """How long every replica has been at its present batch; 0 where one has none."""
        since = list(self._busy_since.values())
        return time.monotonic() - max(since) if len(since) == len(self._threads) else 0.0

    def close(self, timeout: float) -> bool:
        """Takes no further batch; whether all threads ended within `timeout` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(
        self, number: int, make: Callable[[], Callable[[Sequence[Item]], Sequence[Result | Exception]]]
    ) -> None:
        try:
            run = make()
        except BaseException as error:  # noqa: BLE001 - whoever waits for `ready` raises it
            self.ready[number].set_exception(error)
            return
        self.ready[number].set_result(None)
        while (batch := self._next_batch()) is not None:
            began = self._busy_since[number] = time.monotonic()
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if jobs:
                self._run(run, jobs)
            del self._busy_since[number]
            self._on_batch(len(jobs), len(batch) - len(jobs), time.monotonic() - began)

    def _next_batch(self) -> list[_Job[Item, Result]] | None:
        """The next jobs, once there are enough or the oldest has waited long enough; None at the end."""
        with self._changed:
            while not self._closed:
                if not self._jobs:
                    self._changed.wait()
                    continue
                left = self._jobs[0].arrived + self.max_wait_s - time.monotonic()
                if len(self._jobs) >= self.max_batch or left <= 0:
                    return [self._jobs.popleft() for _ in range(min(self.max_batch, len(self._jobs)))]
                self._changed.wait(left)
        return None

    def _run(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        jobs: Sequence[_Job[Item, Result]],
    ) -> None:
        try:
            results = run([job.item for job in jobs])
            if len(results) != len(jobs):
                raise RuntimeError(f"the back end gave {len(results)} results for {len(jobs)} items")
        except Exception as error:
            if len(jobs) == 1:
                if not isinstance(error, ItemError):
                    log.exception("%s: the back end failed on an item", self.name)
                jobs[0].future.set_exception(error)
                return
            log.warning("%s: a batch of %d failed, its items run one by one: %r", self.name, len(jobs), error)
            for job in jobs:
                self._run(run, [job])
            return
        failed = [result for result in results if isinstance(result, Exception)]
        if failed:
            count = f"{len(failed)} of {len(jobs)}"
            log.warning("%s: the back end failed on %s items: %s", self.name, count, failed[0])
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
