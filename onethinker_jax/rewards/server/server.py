"""The reward service's gRPC server: its settings, health checks, and a server that starts, runs and ends cleanly.

It listens on a Unix socket or loopback; beyond this machine it wants TLS and a token and does not start without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onethinker_jax import __version__
from onethinker_jax.errors import UserError
from onethinker_jax.rewards.backends.judge_settings import VerifierSettings
from onethinker_jax.rewards.backends.table import MASK_BACKENDS, MASK_BATCH, TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.rewards.client.addresses import claim_socket, is_local, socket_path
from onethinker_jax.rewards.client.security import TokenCheck, read_token, server_credentials
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from onethinker_jax.rewards.server.batching import BatchingQueue
from onethinker_jax.rewards.server.media_cache import MediaCache
from onethinker_jax.rewards.server.service import MaskJob, RewardService, mask_runner, text_runner
from onethinker_jax.rewards.server.service_metrics import ServiceMetrics

SERVICE_NAME = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
MIN_MESSAGE_BYTES = 2**20  # a caller's chunk of media or of texts fits

log = logging.getLogger("onethinker_jax.rewards.server")


class ServerError(UserError):
    """The server cannot run as asked; the message is one line for the user."""


@dataclass(frozen=True)
class ServerSettings:
    """What to serve, where, and how much of it at once; `main` says what each is. Raises ServerError."""

    address: str = "unix:reward.sock"
    text_backend: str = "rouge"
    text_model: Path | None = None
    mask_backend: str = "grabcut"
    mask_model: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"
    judge: VerifierSettings = field(default_factory=VerifierSettings)
    replicas: int = 1
    text_batch: int = 64
    mask_batch: int | None = None
    max_wait_ms: float = 2.0
    max_waiting: int = 4096
    max_calls: int = 256
    max_items: int = 1024
    max_message_bytes: int = 16 * 2**20
    cache_bytes: int = 2 * 2**30
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    stall_s: float = 600.0
    grace_s: float = 10.0
    stop_with_stdin: bool = False

    def __post_init__(self) -> None:
        for name, table in (("text_backend", TEXT_BACKENDS), ("mask_backend", MASK_BACKENDS)):
            if getattr(self, name) not in table:
                known = ", ".join(table)
                raise ServerError(f"unknown {name.replace('_', ' ')} {getattr(self, name)!r}: one of {known}")
        for name in ("replicas", "text_batch", "mask_batch", "max_calls", "max_items", "cache_bytes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ServerError(f"{name} must be at least 1, not {value}")
        for name in ("grace_s", "stall_s", "max_wait_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ServerError(f"{name} must be a finite number of at least 0, not {getattr(self, name)}")
        if self.max_message_bytes < MIN_MESSAGE_BYTES:
            raise ServerError(
                f"max_message_bytes must be at least {MIN_MESSAGE_BYTES}, not {self.max_message_bytes}"
            )
        if self.max_waiting < self.max_items:
            raise ServerError(f"max_waiting {self.max_waiting} has no room for {self.max_items} items a call")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ServerError("tls_certificate and tls_key come together")

    @property
    def text_scale(self) -> str:
        """What the scores of two servers must agree on to be of one scale."""
        if self.text_backend == "judge":
            prompt = [] if self.judge.prompt is None else [self.judge.prompt.name]
            return " ".join(["judge", self.judge.model, self.judge.form, *prompt])
        dtype = "float32" if self.text_backend == "minilm" else self.dtype  # it computes in that alone
        model = [] if self.text_model is None else [self.text_model.resolve().name, dtype]
        return " ".join([self.text_backend, *model])

    def backend(self, model: Path | None, replica: int) -> BackendSettings:
        """What a replica of a back end is made with; `device` may list several, which they share out."""
        devices = self.device.split(",")
        device = devices[replica % len(devices)]
        return BackendSettings(model=model, device=device, dtype=self.dtype, judge=self.judge)


class Health(health.aio.HealthServicer):  # pyright: ignore[reportAttributeAccessIssue]
    """Health checks whose watchers are let go at the end: one that stays would take all of the grace."""

    def __init__(self) -> None:
        super().__init__()
        self._released = asyncio.Event()

    def release_watchers(self) -> None:
        """Ends every Watch."""
        self._released.set()

    async def Watch(self, request: Any, context: Any) -> None:
        """Ends with `release_watchers`, too."""
        watch = asyncio.ensure_future(super().Watch(request, context))
        released = asyncio.ensure_future(self._released.wait())
        try:
            await asyncio.wait({watch, released}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            released.cancel()

    async def report(self, *, serving: bool) -> None:
        """Sets the status of the server and of its service."""
        statuses = health_pb2.HealthCheckResponse
        for service in ("", SERVICE_NAME):
            await self.set(service, statuses.SERVING if serving else statuses.NOT_SERVING)


class Sidecar:
    """The server's parts: two queues over the replicas of two back ends, and gRPC in front of them."""

    def __init__(self, settings: ServerSettings, token: str | None) -> None:
        self.settings = settings
        self.metrics = ServiceMetrics()
        limits = {"max_wait_s": settings.max_wait_ms / 1000, "max_waiting": settings.max_waiting}

        def make_text(replica: int) -> Any:
            backend = TEXT_BACKENDS[settings.text_backend](settings.backend(settings.text_model, replica))
            return text_runner(backend)

        def make_masks(replica: int) -> Any:
            backend = MASK_BACKENDS[settings.mask_backend](settings.backend(settings.mask_model, replica))
            return mask_runner(backend)

        def queue(name: str, make: Callable[[int], Any], max_batch: int) -> BatchingQueue[Any, Any]:
            makers = [partial(make, replica) for replica in range(settings.replicas)]
            told = partial(self.metrics.batch, name)
            return BatchingQueue(name, makers, max_batch=max_batch, on_batch=told, **limits)

        self.text: BatchingQueue[TextItem, float] = queue("text", make_text, settings.text_batch)
        self.masks: BatchingQueue[MaskJob, Any] = queue(
            "masks", make_masks, settings.mask_batch or MASK_BATCH[settings.mask_backend]
        )
        media = MediaCache(settings.cache_bytes)
        self.metrics.watch([self.text, self.masks], media)
        self.health = Health()
        size = settings.max_message_bytes
        self.server = grpc.aio.server(
            interceptors=[] if token is None else [TokenCheck(token, self.metrics.refused)],
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        describe = reward_pb2.DescribeResponse(
            text_backend=settings.text_backend,
            text_scale=settings.text_scale,
            mask_backend=settings.mask_backend,
            max_message_bytes=size,
            max_items=settings.max_items,
            cache_bytes=settings.cache_bytes,
            version=__version__,
            process_id=os.getpid(),
        )
        service = RewardService(
            self.text, self.masks, media, self.metrics, describe=describe, max_calls=settings.max_calls
        )
        reward_pb2_grpc.add_RewardServiceServicer_to_server(service, self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.server)

    def bind(self, address: str) -> str:
        """Takes the address; what it got. Raises ServerError when it is busy, SecurityError for a bad file."""
        certificate, key = self.settings.tls_certificate, self.settings.tls_key
        try:
            if certificate is not None and key is not None:
                port = self.server.add_secure_port(address, server_credentials(certificate, key))
            else:
                port = self.server.add_insecure_port(address)
        except RuntimeError as error:
            raise ServerError(f"the address {address} is busy or cannot be used") from error
        if (path := socket_path(address)) is not None:
            path.chmod(0o600)
            return address
        return f"{address.rpartition(':')[0]}:{port}"

    async def load(self) -> None:
        """Returns once every replica is made; raises ServerError when one cannot be."""
        for name, queue in (
            (self.settings.text_backend, self.text),
            (self.settings.mask_backend, self.masks),
        ):
            for ready in queue.ready:
                try:
                    await asyncio.wrap_future(ready)
                except (BackendError, ImportError, OSError, RuntimeError, ValueError) as error:
                    raise ServerError(f"cannot make the back end {name}: {error}") from error

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serves, not healthy while a back end hangs; drains once `stop` is set."""
        await self.health.report(serving=True)  # before the first call: callers ask for it first
        await self.server.start()
        while not stop.is_set():
            hangs = max(self.text.busy_s(), self.masks.busy_s()) > self.settings.stall_s
            await self.health.report(serving=not hangs)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
        log.info("stopping: calls under way have %g s to end", self.settings.grace_s)
        await self.health.enter_graceful_shutdown()
        await asyncio.sleep(0.1)  # callers who watch its health go elsewhere before calls are refused
        self.health.release_watchers()
        await self.server.stop(self.settings.grace_s)
        ended = [queue.close(1.0) for queue in (self.text, self.masks)]
        log.info("stopped" if all(ended) else "stopped, with a back end that still computes")


async def serve(settings: ServerSettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then drains: new calls are refused, calls under way get `grace_s`.

    Raises ServerError, AddressError or SecurityError when it cannot serve as asked.
    """
    path = socket_path(settings.address)
    address = settings.address if path is None else f"unix:{path}"
    token = read_token(settings.token_file)
    if not is_local(address) and (token is None or settings.tls_certificate is None):
        raise ServerError(
            f"refusing to listen on {address}: beyond this machine the service needs TLS and a token; give "
            "--tls-certificate, --tls-key and --token-file, or use unix:/path or a loopback address"
        )
    with contextlib.ExitStack() as stack:
        if path is not None:
            stack.enter_context(claim_socket(path))
        sidecar = Sidecar(settings, token)
        bound = sidecar.bind(address)
        if settings.metrics_port is not None:
            host = settings.metrics_host
            try:
                port = stack.enter_context(sidecar.metrics.served(host, settings.metrics_port))
            except OSError as error:
                raise ServerError(f"metrics on {host}:{settings.metrics_port}: {error.strerror}") from error
            log.info("metrics on http://%s:%d/metrics", host, port)
        loading, stopping = asyncio.ensure_future(sidecar.load()), asyncio.ensure_future(stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stop.is_set():
            loading.cancel()
            return
        await loading
        log.info("serving %s and %s on %s", settings.text_backend, settings.mask_backend, bound)
        if settings.text_backend == "rouge":
            threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
        await sidecar.run_until(stop)


def _warm_up() -> None:
    """Imports what the first ROUGE call would wait for (a second), once the server is up."""
    importlib.import_module("nltk.stem.porter")
