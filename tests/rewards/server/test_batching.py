"""The batching queue by itself: who shares a batch, whose error is whose, and what is dropped."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

import pytest

from onethinker_jax.rewards.server.batching import BatchingQueue, QueueFull
from tests.waiting import HANG_S


class Backend:
    """Doubles its items once the gate is open, and remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Event()
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.began.set()
        assert self.gate.wait(HANG_S)
        if any(item < 0 for item in items):
            raise RuntimeError(f"negative in {len(items)}")
        return [2 * item for item in items]


def queue_of(*backends: Callable[[Sequence[int]], Sequence[int]], **options: Any) -> BatchingQueue[int, int]:
    limits: dict[str, Any] = {"max_batch": 4, "max_wait_s": 0.0, "max_waiting": 100, **options}
    return BatchingQueue("trial", [lambda backend=backend: backend for backend in backends], **limits)


def values(futures: Sequence[Future[int]]) -> list[int]:
    return [future.result(HANG_S) for future in futures]


def test_what_waits_is_taken_in_full_batches_and_in_order() -> None:
    backend = Backend()
    queue = queue_of(backend)
    first = queue.submit([0])
    assert backend.began.wait(HANG_S)
    futures = [future for start in range(1, 11, 2) for future in queue.submit([start, start + 1])]
    assert queue.waiting == 10
    backend.gate.set()
    assert values(first + futures) == [2 * item for item in range(11)]
    assert backend.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert queue.close(HANG_S)


def test_a_batch_waits_to_fill_but_not_for_ever() -> None:
    backend = Backend()
    backend.gate.set()
    patient = queue_of(backend, max_wait_s=HANG_S)
    futures = [future for item in range(4) for future in patient.submit([item])]
    assert values(futures) == [0, 2, 4, 6]
    assert backend.batches == [[0, 1, 2, 3]]  # one batch of four callers
    waiting = patient.submit([5])
    assert not wait(waiting, 0.1).done
    assert patient.close(HANG_S)
    began = time.monotonic()
    assert values(queue_of(backend, max_wait_s=0.1).submit([7])) == [14]
    assert time.monotonic() - began >= 0.1


def test_only_the_bad_item_fails() -> None:
    backend = Backend()
    queue = queue_of(backend)
    first = queue.submit([0])
    assert backend.began.wait(HANG_S)
    futures = queue.submit([1, -2, 3])
    backend.gate.set()
    assert values([*first, futures[0], futures[2]]) == [0, 2, 6]
    with pytest.raises(RuntimeError, match="negative in 1"):
        futures[1].result(HANG_S)
    assert backend.batches == [[0], [1, -2, 3], [1], [-2], [3]]
    short = queue_of(lambda items: [1], max_wait_s=HANG_S, max_batch=2)
    assert values(short.submit([1, 2])) == [1, 1]  # one result for two items: asked for again, one by one


def test_cancelled_items_never_run_and_leave_their_place() -> None:
    backend, told = Backend(), []
    queue = queue_of(backend, max_waiting=3, on_batch=lambda *counts: told.append(counts[:2]))
    first = queue.submit([0])
    assert backend.began.wait(HANG_S)
    gone = queue.submit([1, 2, 3])
    with pytest.raises(QueueFull, match="3 of 3 places are taken"):
        queue.submit([4])
    assert gone[0].cancel()
    with pytest.raises(QueueFull, match="no room for 2 items: 2 of 3"):
        queue.submit([4, 5])
    last = queue.submit([6])
    assert gone[1].cancel()
    backend.gate.set()
    assert values([*first, gone[2], *last]) == [0, 6, 12]
    assert queue.close(HANG_S)
    assert backend.batches == [[0], [3, 6]]
    assert told == [(0, 1), (1, 0), (2, 1)]  # the first gone item was found by a submission


def test_replicas_run_side_by_side_and_say_when_all_hang() -> None:
    backends = Backend(), Backend()
    queue = queue_of(*backends, max_batch=1)
    assert queue.busy_s() == 0
    futures = queue.submit([1, 2])
    assert all(backend.began.wait(HANG_S) for backend in backends)  # neither gate is open
    time.sleep(0.05)
    assert 0.04 < queue.busy_s() < HANG_S
    backends[0].gate.set()
    wait(futures, HANG_S, return_when="FIRST_COMPLETED")
    assert queue.submit([3])[0].result(HANG_S) == 6
    assert queue.busy_s() == 0 or backends[0].batches[-1] == [3]
    backends[1].gate.set()
    assert sorted(values(futures)) == [2, 4]
    assert queue.close(HANG_S)
    assert queue.busy_s() == 0


def test_a_replica_that_cannot_be_made_says_so() -> None:
    def broken() -> Callable[[Sequence[int]], list[int]]:
        raise OSError("no such weights")

    queue = BatchingQueue("trial", [broken], max_batch=1, max_wait_s=0, max_waiting=1)
    with pytest.raises(OSError, match="no such weights"):
        queue.ready[0].result(HANG_S)
