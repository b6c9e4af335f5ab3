"""What the server tells Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from onethinker_jax.data_pipeline.media.reading.media_pool import MediaPool
from onethinker_jax.serve.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class ServeMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, engine: Engine, pool: MediaPool):
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "onethinker_requests",
            "Requests by path and HTTP status; status gone: the client hung up first",
            ["path", "status"],
            registry=registry,
        )
        self.prompt_tokens = Counter("onethinker_prompt_tokens", "Tokens of prompts", registry=registry)
        self.generated_tokens = Counter("onethinker_generated_tokens", "Tokens of answers", registry=registry)
        self.first_token = Histogram(
            "onethinker_time_to_first_token_seconds",
            "From a chat request's arrival to its first token",
            buckets=SECONDS,
            registry=registry,
        )
        self.seconds = Histogram(
            "onethinker_request_seconds",
            "From a chat request's arrival to its answer's end",
            buckets=SECONDS,
            registry=registry,
        )
        self.under_way = 0
        """Requests under way."""
        registry.register(_State(self, engine, pool))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read of the parts when somebody asks."""

    def __init__(self, metrics: ServeMetrics, engine: Engine, pool: MediaPool):
        self._metrics, self._engine, self._pool = metrics, engine, pool

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        batch = self._engine.batch
        for name, said, value in (
            (
                "onethinker_requests_under_way",
                "Requests being read, waiting or answered",
                self._metrics.under_way,
            ),
            ("onethinker_slots", "Answers that can be decoded together", batch.shape.prompt_slots),
            ("onethinker_slots_running", "Answers being decoded", batch.running),
            ("onethinker_requests_waiting", "Requests whose answers wait for a slot", batch.waiting),
        ):
            yield GaugeMetricFamily(name, said, value)
        for name, said, value in (
            ("onethinker_prefills", "Prompts computed", batch.prefills),
            ("onethinker_decode_steps", "Decode steps of all slots together", batch.steps),
            (
                "onethinker_media_processes_replaced",
                "Decoding processes that a file ended",
                self._pool.replaced,
            ),
        ):
            yield CounterMetricFamily(name, said, value)
