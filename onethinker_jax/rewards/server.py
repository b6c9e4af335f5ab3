"""The reward sidecar: `python -m onethinker_jax.rewards.server --address unix:/path | host:port`.

A process of its own that scores open-ended answers and makes masks over gRPC, so that neither PyTorch nor a
slow judge lives in the trainer. It answers health checks and reflection, limits what it accepts, and ends by
SIGTERM or SIGINT once the calls under way are answered. It speaks plain text and therefore only listens on a
Unix socket or a loopback address.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib
import ipaddress
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from onethinker_jax import __version__
from onethinker_jax.rewards.backends import (
    MASK_BACKENDS,
    TEXT_BACKENDS,
    ItemError,
    MaskBackend,
    MaskPrompt,
    TextBackend,
    TextItem,
)
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc

SERVICE_NAME = reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name
MAX_MESSAGE_BYTES = 256 * 2**20
MAX_ITEMS = 1024
MAX_SOCKET_PATH_BYTES = 107

log = logging.getLogger("onethinker_jax.rewards.server")


class ServerError(Exception):
    """The server cannot run as asked; the message is one line for the user."""


@dataclass(frozen=True)
class ServerSettings:
    """What to serve and where. `address` is `unix:/path` or `host:port` (port 0: any free one)."""

    address: str
    text_backend: str = "rouge"
    mask_backend: str = "grabcut"
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_items: int = MAX_ITEMS
    max_calls: int = 64
    workers: int = 4
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        for name, table in (("text_backend", TEXT_BACKENDS), ("mask_backend", MASK_BACKENDS)):
            if getattr(self, name) not in table:
                known = ", ".join(table)
                raise ServerError(f"unknown {name.replace('_', ' ')} {getattr(self, name)!r}: one of {known}")
        for name in ("max_message_bytes", "max_items", "max_calls", "workers"):
            if getattr(self, name) < 1:
                raise ServerError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.grace_s < float("inf"):
            raise ServerError(f"grace_s must be a finite number of at least 0, not {self.grace_s}")


class RewardService(reward_pb2_grpc.RewardServiceServicer):
    """The service of reward.proto over one text and one mask back end."""

    def __init__(self, text: TextBackend, masks: MaskBackend, settings: ServerSettings) -> None:
        self._text = text
        self._masks = masks
        self._settings = settings

    def Describe(self, request: Any, context: grpc.ServicerContext) -> Any:
        return reward_pb2.DescribeResponse(
            text_backend=self._settings.text_backend,
            mask_backend=self._settings.mask_backend,
            max_message_bytes=self._settings.max_message_bytes,
            max_items=self._settings.max_items,
            version=__version__,
            process_id=os.getpid(),
        )

    def ScoreText(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check_items(request.items, context)
        items = [TextItem(item.question, item.reference, item.answer) for item in request.items]
        scores = self._text.score(items)
        return reward_pb2.ScoreTextResponse(results=[reward_pb2.TextResult(score=score) for score in scores])

    def SegmentImage(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check_items(request.items, context)

        def segment(item: Any) -> np.ndarray:
            frames = frames_from(item.image)
            if len(frames) != 1:
                raise ItemError(f"an image is one frame, not {len(frames)}")
            return self._masks.segment_image(frames[0], prompt_from(item.prompt))[None]

        results = [_mask_result(segment, item, context) for item in request.items]
        return reward_pb2.SegmentImageResponse(results=results)

    def SegmentVideo(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._check_items(request.items, context)

        def segment(item: Any) -> np.ndarray:
            frames = frames_from(item.frames)
            if item.key_frame >= len(frames):
                raise ItemError(f"key frame {item.key_frame} of a video of {len(frames)} frames")
            return self._masks.segment_video(frames, item.key_frame, prompt_from(item.prompt))

        results = [_mask_result(segment, item, context) for item in request.items]
        return reward_pb2.SegmentVideoResponse(results=results)

    def _check_items(self, items: Sequence[Any], context: grpc.ServicerContext) -> None:
        if not items:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no items")
        if len(items) > self._settings.max_items:
            message = f"the call has {len(items)} items, the limit is {self._settings.max_items}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)


def frames_from(message: Any) -> np.ndarray:
    """A Frames message as uint8 [N, H, W, 3]; raises ItemError when its sizes do not fit its bytes."""
    shape = (message.count, message.height, message.width, 3)
    if min(shape) < 1:
        raise ItemError(f"frames of count {shape[0]}, height {shape[1]}, width {shape[2]}")
    wanted = message.count * message.height * message.width * 3
    if len(message.rgb) != wanted:
        size = f"{message.count} frames of {message.height}×{message.width}"
        raise ItemError(f"{size} take {wanted} bytes, got {len(message.rgb)}")
    return np.frombuffer(message.rgb, dtype=np.uint8).reshape(shape)


def prompt_from(message: Any) -> MaskPrompt:
    """A Prompt message as `MaskPrompt`; raises ItemError without a box."""
    if not message.HasField("box"):
        raise ItemError("the prompt has no box")
    box = message.box
    return MaskPrompt(
        box=(box.x1, box.y1, box.x2, box.y2),
        positive_points=tuple((point.x, point.y) for point in message.positive_points),
        negative_points=tuple((point.x, point.y) for point in message.negative_points),
    )


def _mask_result(segment: Callable[[Any], np.ndarray], item: Any, context: grpc.ServicerContext) -> Any:
    """Serves one item; its own fault becomes its own error. Nothing is done for a caller that is gone."""
    if not context.is_active():
        context.abort(grpc.StatusCode.CANCELLED, "the caller is gone")
    try:
        masks = segment(item)
    except ItemError as error:
        code = reward_pb2.ItemError.INVALID_ARGUMENT
        return reward_pb2.MaskResult(error=reward_pb2.ItemError(code=code, message=str(error)))
    count, height, width = masks.shape
    bits = np.packbits(masks.reshape(-1)).tobytes()
    return reward_pb2.MaskResult(masks=reward_pb2.Masks(count=count, height=height, width=width, bits=bits))


@contextlib.contextmanager
def claim_socket(path: Path) -> Iterator[None]:
    """Holds a Unix socket's path for this process: removes a stale socket, refuses a live one's.

    gRPC by itself takes over the socket of a running server. A lock on `PATH.lock`, which ends with its
    process however that ends, tells the two cases apart. The socket is removed at the end.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ServerError(
            f"the socket path {path} has {len(os.fsencode(path))} bytes, the limit is {MAX_SOCKET_PATH_BYTES}"
        )
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerError(f"cannot use the socket path {path}: {error.strerror}: {lock_path}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"the address unix:{path} is busy: another reward server runs there") from None
        _remove_stale_socket(path)
        yield
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    finally:
        os.close(lock)


def _remove_stale_socket(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ServerError(f"cannot use the address unix:{path}: a file that is not a socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            raise ServerError(f"the address unix:{path} is busy: {error}") from error
    raise ServerError(f"the address unix:{path} is busy: another program serves there")


def check_address(address: str) -> Path | None:
    """The path of a `unix:` address, None for a `host:port` on loopback; raises ServerError for others."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:").removeprefix("//")
        if not path:
            raise ServerError("the address unix: needs a path")
        return Path(path).absolute()
    host, separator, port = address.rpartition(":")
    host = host.strip("[]")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ServerError(f"the address {address!r} is neither unix:/path nor host:port")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ServerError(
            f"refusing to listen on {address}: beyond this machine the service needs TLS and a token, which "
            "this version does not have; use unix:/path or a loopback address"
        )
    return None


def build_server(settings: ServerSettings, address: str) -> tuple[grpc.Server, health.HealthServicer, str]:
    """A server bound to `address` but not started, its health service, and the address it got."""
    size = settings.max_message_bytes
    server = grpc.server(
        ThreadPoolExecutor(max_workers=settings.workers, thread_name_prefix="reward"),
        maximum_concurrent_rpcs=settings.max_calls,
        options=[
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", size),
            ("grpc.so_reuseport", 0),
        ],
    )
    text, masks = TEXT_BACKENDS[settings.text_backend](), MASK_BACKENDS[settings.mask_backend]()
    reward_pb2_grpc.add_RewardServiceServicer_to_server(RewardService(text, masks, settings), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ServerError(f"the address {address} is busy or cannot be used") from error
    if address.startswith("unix:"):
        return server, checks, address
    return server, checks, f"{address.rpartition(':')[0]}:{port}"


def serve(settings: ServerSettings, stop: threading.Event) -> None:
    """Serves until `stop` is set, then drains: new calls are refused, calls under way get `grace_s`.

    Raises ServerError when the address is busy or not allowed.
    """
    path = check_address(settings.address)
    address = settings.address if path is None else f"unix:{path}"
    with claim_socket(path) if path is not None else contextlib.nullcontext():
        server, checks, bound = build_server(settings, address)
        server.start()
        for service in ("", SERVICE_NAME):
            checks.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving %s and %s on %s", settings.text_backend, settings.mask_backend, bound)
        threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
        # The kernel may hand a signal to any thread; Python then runs its handler only once the main thread
        # does something, which an endless wait never does.
        while not stop.wait(0.25):
            pass
        log.info("stopping: calls under way have %g s to end", settings.grace_s)
        checks.enter_graceful_shutdown()
        ended = server.stop(settings.grace_s).wait(settings.grace_s + 2.0)
        log.info("stopped" if ended else "stopped, with gRPC still holding a call")


def _warm_up() -> None:
    """Imports what the first ROUGE call would wait for (a second), once the server is up."""
    importlib.import_module("nltk.stem.porter")


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    log.info("the process that started this server is gone")
    stop.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 after a clean stop, 1 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m onethinker_jax.rewards.server", description=__doc__)
    parser.add_argument("--address", required=True, help="unix:/path, or host:port on loopback")
    parser.add_argument("--text-backend", default="rouge", help=f"one of {', '.join(TEXT_BACKENDS)}")
    parser.add_argument("--mask-backend", default="grabcut", help=f"one of {', '.join(MASK_BACKENDS)}")
    parser.add_argument("--max-message-bytes", type=int, default=MAX_MESSAGE_BYTES)
    parser.add_argument("--max-items", type=int, default=MAX_ITEMS, help="items in one call")
    parser.add_argument("--max-calls", type=int, default=64, help="calls at once, running and waiting")
    parser.add_argument("--workers", type=int, default=4, help="calls that run at once")
    parser.add_argument("--grace-s", type=float, default=10.0, help="seconds for calls under way at the end")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input ends")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.pop("stop_with_stdin"):
        threading.Thread(target=_stop_at_end_of_input, args=(stop,), name="stdin", daemon=True).start()
    try:
        serve(ServerSettings(**options), stop)
    except ServerError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # a back end stuck in a call must not keep the process: its grace is over
