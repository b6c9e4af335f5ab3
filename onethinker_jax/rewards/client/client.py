"""The reward service seen from the trainer: calls with a deadline.

A call is tried again, ever more slowly, while the service cannot be reached; when its whole deadline is over
it raises `RewardUnavailable`. A score is never made up: whoever catches the error must not go on with
another scale. Masks and scores are the same numbers the back end computes in one's own process.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onethinker_jax.errors import EndedByStop, SkippableError, UserError
from onethinker_jax.rewards.backends.types import TextItem
from onethinker_jax.rewards.client.addresses import channel_target, is_local
from onethinker_jax.rewards.client.messages import (
    CALL_ITEMS,
    MaskItem,
    Points,
    RewardRequestError,
    SegmentCall,
    masks_from,
    text_requests,
)
from onethinker_jax.rewards.client.security import (
    SecurityError,
    authorization,
    channel_credentials,
)
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc

__all__ = [
    "MaskItem",
    "RewardClient",
    "RewardGivenUp",
    "RewardItemError",
    "RewardRequestError",
    "RewardUnavailable",
    "TextItem",
]

log = logging.getLogger(__name__)

Part = TypeVar("Part")
Answer = TypeVar("Answer")

SERVICE_NAME = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
_CALLS_AT_ONCE = 8  # of one score_text or segment_…: enough to keep several servers at work
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 2.0
_WORTH_ANOTHER_TRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_BALANCING = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": SERVICE_NAME},
}


class RewardUnavailable(UserError):
    """The service gave no answer within the deadline. Names the address and the cause."""


class RewardItemError(RewardUnavailable, SkippableError):
    """The service works and failed on one item."""


class RewardGivenUp(RewardUnavailable, EndedByStop):
    """The client stopped waiting for the service, as `give_up` asked."""


class RewardClient:
    """Calls the reward service at one or several addresses; of several, in turn those that are healthy.

    `addresses` are all `unix:/path`, all `host:port` with IP addresses, or one host name, which may have
    several IP addresses. `timeout` is the total for a method in seconds, repetitions included. Beyond this
    machine `authorities` (a PEM file with the certificates to trust) and `token` are needed; `server_name` is
    the certificate's where it is not the address's. Safe to use from several threads. Raises AddressError or
    SecurityError for what cannot be used.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        timeout: float = 120.0,
        authorities: Path | None = None,
        token: str | None = None,
        server_name: str | None = None,
    ) -> None:
        addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self.address = ", ".join(addresses)
        self.timeout = timeout
        target = channel_target(addresses)
        if not all(map(is_local, addresses)) and (authorities is None or token is None):
            raise SecurityError(f"{self.address}: beyond this machine the service needs TLS and a token")
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 10_000),  # what it means: how long an attempt may take
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", 15_000),  # finds a host that is gone without a word
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config", json.dumps(_BALANCING)),
        ]
        if server_name is not None:
            options.append(("grpc.ssl_target_name_override", server_name))
        if authorities is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            self._channel = grpc.secure_channel(target, channel_credentials(authorities), options=options)
        self._metadata = authorization(token)
        self._service = reward_pb2_grpc.RewardServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._scale: str | None = None
        self._lock = threading.Lock()
        self._given_up = threading.Event()

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self._channel.close()

    def give_up(self) -> None:
        """Ends the waiting for answers: calls under way, and all later ones, raise RewardGivenUp at once.

        So a stop need not wait for a service that is slow or gone. May be called from any thread, and again.
        """
        self._given_up.set()
        self._channel.close()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Returns once the service says it is serving; raises RewardUnavailable after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        cause = "no attempt was made"
        while (left := deadline - time.monotonic()) > 0:
            try:
                status = self._health.Check(health_pb2.HealthCheckRequest(), timeout=min(left, 5.0)).status
                if status == health_pb2.HealthCheckResponse.SERVING:
                    return
                cause = f"its health is {health_pb2.HealthCheckResponse.ServingStatus.Name(status)}"
            except grpc.RpcError as error:
                code, details = _status_of(error)
                cause = f"{code.name}: {details}"
            time.sleep(min(0.05, max(deadline - time.monotonic(), 0.0)))
        raise RewardUnavailable(
            f"the reward service at {self.address} was not ready in {timeout:g} s: {cause}"
        )

    def describe(self) -> Any:
        """The server's DescribeResponse: back ends, limits, version, process id."""
        deadline = time.monotonic() + self.timeout
        request = reward_pb2.DescribeRequest()
        return self._call(self._service.Describe, lambda call: call(request), deadline)

    def score_text(self, items: Sequence[TextItem]) -> list[float]:
        """One score an item, in order; in [0, 1] for ROUGE.

        Raises RewardUnavailable also when a server's scores are of another scale than the first one's.
        """
        deadline = time.monotonic() + self.timeout

        def score(request: Any) -> list[float]:
            response = self._call(self._service.ScoreText, lambda call: call(request), deadline)
            self._check_scale(response.scale)
            return [float(result.score) for result in _checked(response.results, len(request.items))]

        return [score for part in self._at_once(score, text_requests(items)) for score in part]

    def segment_image(
        self,
        image: np.ndarray,
        box: Sequence[float],
        positive_points: Points = (),
        negative_points: Points = (),
    ) -> np.ndarray:
        """uint8 [H, W, 3], box and points in 0–1000 -> bool [H, W]. A box without area: an empty mask."""
        return self.segment_images([MaskItem(image[None], box, positive_points, negative_points)])[0]

    def segment_images(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        """A mask, bool [H, W], for each item, in order; every frames array has one frame."""
        return [masks[0] for masks in self._segment(self._service.SegmentImage, items)]

    def segment_video(
        self,
        frames: np.ndarray,
        key_frame: int,
        box: Sequence[float],
        positive_points: Points = (),
        negative_points: Points = (),
    ) -> np.ndarray:
        """uint8 [N, H, W, 3], the prompt of frame `key_frame` (an index) in 0–1000 -> bool [N, H, W]."""
        return self.segment_videos([MaskItem(frames, box, positive_points, negative_points, key_frame)])[0]

    def segment_videos(self, items: Sequence[MaskItem]) -> list[np.ndarray]:
        """Masks, bool [N, H, W], for each item, in order. Items that share a frames array share its upload."""
        return self._segment(self._service.SegmentVideo, items)

    def _segment(self, method: Callable[..., Any], items: Sequence[MaskItem]) -> list[np.ndarray]:
        deadline = time.monotonic() + self.timeout
        by_medium: dict[int, list[int]] = {}
        for number, item in enumerate(items):
            by_medium.setdefault(id(item.frames), []).append(number)
        parts = [
            numbers[start : start + CALL_ITEMS]
            for numbers in by_medium.values()
            for start in range(0, len(numbers), CALL_ITEMS)
        ]

        def segment(numbers: list[int]) -> list[np.ndarray]:
            message = SegmentCall([items[number] for number in numbers])
            results = self._call(method, message.run, deadline)
            return [masks_from(result) for result in _checked(results, len(numbers))]

        masks = dict(
            pair
            for numbers, part in zip(parts, self._at_once(segment, parts), strict=True)
            for pair in zip(numbers, part, strict=True)
        )
        return [masks[number] for number in range(len(items))]

    def _at_once(self, function: Callable[[Part], Answer], parts: Sequence[Part]) -> list[Answer]:
        """The function of each part, in order, several running at once; raises the first part's error."""
        if len(parts) <= 1:
            return [function(part) for part in parts]
        with ThreadPoolExecutor(min(len(parts), _CALLS_AT_ONCE)) as pool:
            try:
                return list(pool.map(function, parts))
            except KeyboardInterrupt:
                self.give_up()  # else the pool waits for every call that is under way
                raise

    def _check_scale(self, scale: str) -> None:
        with self._lock:
            self._scale = self._scale or scale
        if scale != self._scale:
            raise RewardUnavailable(
                f"the reward service at {self.address} scores by {scale!r} and by {self._scale!r}: two scales "
                "are not mixed"
            )

    def _call(
        self, method: Callable[..., Any], send: Callable[[Callable[..., Any]], Answer], deadline: float
    ) -> Answer:
        """What `send` makes of the method: tried until it succeeds or the deadline is over, with back-off."""
        delay, cause = _FIRST_DELAY_S, "no attempt was made"
        while (left := deadline - time.monotonic()) > 0:
            if self._given_up.is_set():
                raise RewardGivenUp(f"the reward service at {self.address} is not waited for any more")
            try:
                return send(partial(method, timeout=left, metadata=self._metadata))
            except grpc.RpcError as error:
                code, details = _status_of(error)
            except ValueError:  # what gRPC says of a closed connection
                if not self._given_up.is_set():
                    raise
                continue
            if self._given_up.is_set():
                continue
            cause = f"{code.name}: {details}"
            too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
            if code is grpc.StatusCode.INVALID_ARGUMENT or too_large:
                raise RewardRequestError(f"the reward service at {self.address} refused a request: {details}")
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
            if code not in _WORTH_ANOTHER_TRY:
                raise RewardUnavailable(f"the reward service at {self.address} failed: {cause}")
            if delay == _FIRST_DELAY_S:
                log.warning("the reward service at %s: %s; trying for %.0f s more", self.address, cause, left)
            self._given_up.wait(max(0.0, min(delay * random.uniform(0.5, 1.0), deadline - time.monotonic())))
            delay = min(2 * delay, _LONGEST_DELAY_S)
        raise RewardUnavailable(
            f"the reward service at {self.address} gave no answer within {self.timeout:g} s: {cause}"
        )


def _status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Code and details of a failed call; gRPC's own error type does not declare them."""
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


def _checked(results: Sequence[Any], count: int) -> Sequence[Any]:
    """The results, once they are as many as the items and none is an error."""
    if len(results) != count:
        raise RewardUnavailable(f"the reward service answered {len(results)} results for {count} items")
    for number, result in enumerate(results):
        which = result.WhichOneof("result")
        if which == "error" and result.error.code == reward_pb2.ItemError.INVALID_ARGUMENT:
            raise RewardRequestError(f"the reward service refused item {number}: {result.error.message}")
        if which in ("error", None):
            raise RewardItemError(f"the reward service failed on item {number}: {result.error.message}")
    return results
