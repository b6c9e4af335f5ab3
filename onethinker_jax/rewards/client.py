"""The reward service seen from the trainer: calls with a deadline, and a server of one's own to call.

A call is tried again, ever more slowly, while the service cannot be reached; when its whole deadline is over
it raises `RewardUnavailable`. A score is never made up: whoever catches the error must not go on with
another scale. Masks and scores are the same numbers the back end computes in one's own process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from onethinker_jax.rewards.backends import TextItem
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc

__all__ = [
    "RewardClient",
    "RewardRequestError",
    "RewardUnavailable",
    "RunningServer",
    "TextItem",
    "start_server",
]

log = logging.getLogger(__name__)

MAX_TEXT_CHARS = 65_536
"""Longer texts are cut before they are sent: no back end reads as much."""

_ITEMS_A_CALL = 256
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 2.0
_SOCKET_PATH_BYTES = 100  # the kernel takes 107

Points = Sequence[Sequence[float]]


class RewardUnavailable(RuntimeError):
    """The service gave no answer within the deadline. Names the address and the cause."""


class RewardRequestError(ValueError):
    """The service refused a request as malformed or too large; sending it again would not help."""


class RewardClient:
    """Calls one reward service. `timeout` is the total for a call in seconds, repetitions included.

    `address` is `unix:/path` or `host:port`. Safe to use from several threads.
    """

    def __init__(self, address: str, *, timeout: float = 120.0) -> None:
        self.address = address
        self.timeout = timeout
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._service = reward_pb2_grpc.RewardServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> RewardClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
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
        return self._call(self._service.Describe, reward_pb2.DescribeRequest())

    def score_text(self, items: Sequence[TextItem]) -> list[float]:
        """One score an item, in order; in [0, 1] for ROUGE. Split into calls of at most 256 items."""
        scores: list[float] = []
        for start in range(0, len(items), _ITEMS_A_CALL):
            part = items[start : start + _ITEMS_A_CALL]
            request = reward_pb2.ScoreTextRequest(items=[_text_message(item) for item in part])
            response = self._call(self._service.ScoreText, request)
            scores.extend(float(result.score) for result in _checked(response.results, len(part)))
        return scores

    def segment_image(
        self,
        image: np.ndarray,
        box: Sequence[float],
        positive_points: Points = (),
        negative_points: Points = (),
    ) -> np.ndarray:
        """uint8 [H, W, 3], box and points in 0–1000 -> bool [H, W]. A box without area: an empty mask."""
        item = reward_pb2.ImageItem(
            image=_frames_message(image[None]), prompt=_prompt_message(box, positive_points, negative_points)
        )
        response = self._call(self._service.SegmentImage, reward_pb2.SegmentImageRequest(items=[item]))
        return _masks_from(_checked(response.results, 1)[0])[0]

    def segment_video(
        self,
        frames: np.ndarray,
        key_frame: int,
        box: Sequence[float],
        positive_points: Points = (),
        negative_points: Points = (),
    ) -> np.ndarray:
        """uint8 [N, H, W, 3], the prompt of frame `key_frame` (an index) in 0–1000 -> bool [N, H, W]."""
        if not 0 <= key_frame < len(frames):
            raise RewardRequestError(f"key frame {key_frame} of a video of {len(frames)} frames")
        item = reward_pb2.VideoItem(
            frames=_frames_message(frames),
            key_frame=key_frame,
            prompt=_prompt_message(box, positive_points, negative_points),
        )
        response = self._call(self._service.SegmentVideo, reward_pb2.SegmentVideoRequest(items=[item]))
        return _masks_from(_checked(response.results, 1)[0])

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        """Calls until it succeeds or the total deadline is over; backs off with jitter in between."""
        deadline = time.monotonic() + self.timeout
        delay, cause = _FIRST_DELAY_S, "no attempt was made"
        while (left := deadline - time.monotonic()) > 0:
            try:
                return method(request, timeout=left)
            except grpc.RpcError as error:
                code, details = _status_of(error)
            cause = f"{code.name}: {details}"
            too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
            if code is grpc.StatusCode.INVALID_ARGUMENT or too_large:
                size = f"request of {request.ByteSize()} bytes: " if too_large else ""
                raise RewardRequestError(f"the reward service at {self.address} refused a {size}{details}")
            if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                break
            log.warning("the reward service at %s: %s; trying again", self.address, cause)
            time.sleep(max(0.0, min(delay * random.uniform(0.5, 1.0), deadline - time.monotonic())))
            delay = min(2 * delay, _LONGEST_DELAY_S)
        raise RewardUnavailable(
            f"the reward service at {self.address} gave no answer within {self.timeout:g} s: {cause}"
        )


def _status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Code and details of a failed call; gRPC's own error type does not declare them."""
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


def _text_message(item: TextItem) -> Any:
    return reward_pb2.TextItem(
        question=_sendable(item.question), reference=_sendable(item.reference), answer=_sendable(item.answer)
    )


def _sendable(text: str) -> str:
    """What a protobuf string can hold: a lone surrogate, which UTF-8 cannot, becomes a question mark."""
    return text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")


def _frames_message(frames: np.ndarray) -> Any:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise RewardRequestError(f"frames are uint8 [N, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    count, height, width = frames.shape[:3]
    return reward_pb2.Frames(
        count=count, height=height, width=width, rgb=np.ascontiguousarray(frames).tobytes()
    )


def _prompt_message(box: Sequence[float], positive_points: Points, negative_points: Points) -> Any:
    if len(box) != 4 or any(len(point) != 2 for point in (*positive_points, *negative_points)):
        raise RewardRequestError(f"a box has four numbers and a point two: {box!r:.100}")
    return reward_pb2.Prompt(
        box=reward_pb2.Box(x1=box[0], y1=box[1], x2=box[2], y2=box[3]),
        positive_points=[reward_pb2.Point(x=x, y=y) for x, y in positive_points],
        negative_points=[reward_pb2.Point(x=x, y=y) for x, y in negative_points],
    )


def _checked(results: Sequence[Any], count: int) -> Sequence[Any]:
    """The results, once they are as many as the items and none is an error."""
    if len(results) != count:
        raise RewardUnavailable(f"the reward service answered {len(results)} results for {count} items")
    for number, result in enumerate(results):
        which = result.WhichOneof("result")
        if which == "error" and result.error.code == reward_pb2.ItemError.INVALID_ARGUMENT:
            raise RewardRequestError(f"the reward service refused item {number}: {result.error.message}")
        if which in ("error", None):
            raise RewardUnavailable(f"the reward service failed on item {number}: {result.error.message}")
    return results


def _masks_from(result: Any) -> np.ndarray:
    """A Masks message as bool [N, H, W]."""
    masks = result.masks
    shape = (masks.count, masks.height, masks.width)
    bits = np.unpackbits(np.frombuffer(masks.bits, dtype=np.uint8), count=int(np.prod(shape)))
    return bits.astype(bool).reshape(shape)


@dataclass(frozen=True)
class RunningServer:
    """A server started by `start_server`: what to connect to, its process, and where it logs."""

    address: str
    process: subprocess.Popen[bytes]
    log_path: Path


@contextlib.contextmanager
def start_server(
    socket_path: str | os.PathLike[str],
    log_path: str | os.PathLike[str],
    *,
    text_backend: str = "rouge",
    mask_backend: str = "grabcut",
    ready_timeout: float = 60.0,
) -> Iterator[RunningServer]:
    """Runs a reward server as a child process on a Unix socket for the duration of the block.

    Yields once it is serving. Where `socket_path` is longer than the kernel allows (about 100 bytes), the
    socket lies in a temporary folder instead: use the yielded `address`. The child is in a session of its
    own, so that Ctrl-C in the terminal does not reach it while the trainer finishes, and it ends when this
    process does, however that ends. Raises RewardUnavailable, with the end of the log, when it does not
    come up.
    """
    log_path = Path(log_path)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        path = Path(socket_path).absolute()
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reward-"))) / "reward.sock"
        path.parent.mkdir(parents=True, exist_ok=True)
        log_file = stack.enter_context(log_path.open("ab"))
        start = log_file.tell()
        command = [sys.executable, "-m", "onethinker_jax.rewards.server", "--stop-with-stdin"]
        command += ["--address", f"unix:{path}"]
        command += ["--text-backend", text_backend, "--mask-backend", mask_backend]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            env=_child_environment(),
            start_new_session=True,
        )
        stack.callback(_stop, process)
        server = RunningServer(f"unix:{path}", process, log_path)
        _wait_until_serving(server, start, ready_timeout)
        yield server


def _child_environment() -> dict[str, str]:
    """This process's environment, in which this very package is importable."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _wait_until_serving(server: RunningServer, log_start: int, timeout: float) -> None:
    """Returns once the child itself serves; another server on its socket is not taken for it."""
    deadline = time.monotonic() + timeout
    with RewardClient(server.address, timeout=5.0) as client:
        while True:
            with contextlib.suppress(RewardUnavailable):
                client.wait_ready(min(0.25, max(deadline - time.monotonic(), 0.01)))
                if client.describe().process_id == server.process.pid:
                    return
                time.sleep(0.05)
            status = server.process.poll()
            if status is not None or time.monotonic() > deadline:
                what = f"was not ready in {timeout:g} s" if status is None else f"ended with status {status}"
                end = _log_end(server.log_path, log_start)
                raise RewardUnavailable(f"the reward server at {server.address} {what}: {end}")


def _log_end(path: Path, start: int) -> str:
    """The last lines written to a log since byte `start`, in one line."""
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read()[-4000:].decode("utf-8", "replace").splitlines()
    return " | ".join(line.strip() for line in lines[-5:] if line.strip()) or f"nothing in {path}"


def _stop(process: subprocess.Popen[bytes], grace_s: float = 15.0) -> None:
    """Asks the child to drain and end; ends it by force when it has not after `grace_s` seconds."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        log.warning("the reward server (process %d) did not stop in %g s: killing it", process.pid, grace_s)
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
