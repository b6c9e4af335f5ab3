"""What the reward server tells Prometheus: calls, items, queues, batches, media."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from onethinker_jax.rewards.server.batching import BatchingQueue
from onethinker_jax.rewards.server.media_cache import MediaCache

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ServiceMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "reward_calls", "Calls by gRPC status", ["method", "code"], registry=self.registry
        )
        self._call_seconds = Histogram(
            "reward_call_seconds", "Time of a call", ["method"], buckets=SECONDS, registry=self.registry
        )
        self._items = Counter(
            "reward_items",
            "Items by outcome: ok, invalid, internal (the back end failed), dropped (the caller was gone)",
            ["queue", "outcome"],
            registry=self.registry,
        )
        self._batch_items = Histogram(
            "reward_batch_items", "Size of a batch", ["queue"], buckets=BATCH_SIZES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "reward_batch_seconds", "Time of a batch", ["queue"], buckets=SECONDS, registry=self.registry
        )
        self._under_way = Gauge("reward_calls_under_way", "Calls being served", registry=self.registry)
        self._depth = Gauge("reward_queue_depth", "Items that wait", ["queue"], registry=self.registry)
        self._media = Gauge(
            "reward_media",
            "Media since the start: hits, uploads, evictions; bytes: held now",
            ["what"],
            registry=self.registry,
        )

    @contextlib.contextmanager
    def call(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Counts and times the call that the block serves."""
        began = time.perf_counter()
        self._under_way.inc()
        code = "UNKNOWN"
        try:
            yield
            code = "OK"
        except grpc.aio.AbortError:
            code = grpc.StatusCode(context.code()).name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self._under_way.dec()
            self._calls.labels(method, code).inc()
            self._call_seconds.labels(method).observe(time.perf_counter() - began)

    def refused(self) -> None:
        """Counts a call without the token."""
        self._calls.labels("any", "UNAUTHENTICATED").inc()

    def items(self, queue: str, outcome: str, count: int = 1) -> None:
        """Counts items by what became of them."""
        self._items.labels(queue, outcome).inc(count)

    def batch(self, queue: str, items: int, dropped: int, seconds: float) -> None:
        """Counts a batch; of `dropped` items the callers were gone."""
        self.items(queue, "dropped", dropped)
        if items:
            self._batch_items.labels(queue).observe(items)
            self._batch_seconds.labels(queue).observe(seconds)

    def watch(self, queues: list[BatchingQueue], media: MediaCache) -> None:
        """Reads depths and media when it is asked for them."""
        for queue in queues:
            self._depth.labels(queue.name).set_function(lambda queue=queue: queue.waiting)
        self._media.labels("bytes").set_function(lambda: media.used)
        for what in ("hits", "uploads", "evictions"):
            self._media.labels(what).set_function(lambda what=what: getattr(media, what))

    @contextlib.contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answers HTTP for the block's duration; yields the port it got. Raises OSError where it is taken."""
        server, thread = start_http_server(port, addr=host, registry=self.registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
