"""An OpenAI-compatible endpoint over real HTTP whose answers a test scripts: it can fail, stall and answer late."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import HANG_S

NEVER = threading.TIMEOUT_MAX


@dataclass
class Response:
    """What the endpoint does with a request. `body` as it is; else a completion with `text`."""

    text: str | None = ""
    finish_reason: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hang: float = 0.0  # seconds before anything is sent; NEVER: nothing is sent at all
    drop: bool = False  # closes the connection instead of answering
    message: dict[str, Any] = field(default_factory=dict)  # further fields

    def payload(self, request: dict[str, Any]) -> bytes:
        if self.body is not None:
            return self.body
        asked = json.dumps(request["messages"])
        pictures = re.findall(r"data:image/jpeg;base64,[^\"]*", asked)
        tokens = (
            (len(asked) - sum(map(len, pictures))) // 4 + 200 * len(pictures),
            len(self.text or "") // 4 + 1,
        )
        choice = {
            "index": 0,
            "finish_reason": self.finish_reason,
            "message": {"role": "assistant", "content": self.text, **self.message},
        }
        usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": request["model"]}
        return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


@dataclass(frozen=True)
class Seen:
    """A request that came in; seconds of the monotonic clock."""

    request: dict[str, Any]
    headers: dict[str, str]
    path: str
    at: float


def failure(status: int, message: str, **more: Any) -> Response:
    """An error in the API's own form."""
    headers = more.pop("headers", {})
    return Response(
        status=status, headers=headers, body=json.dumps({"error": {"message": message, **more}}).encode()
    )


def digest(messages: list[dict[str, Any]]) -> str:
    """Tells one question from another, pictures included."""
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()


class Gate:
    """Lets the first `answers` answers through, and the others once it is opened."""

    def __init__(self, answers: int):
        self._left, self._open, self._changed = answers, False, threading.Condition()

    def __call__(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._open or self._left, HANG_S), "the gate stays shut"
            self._left -= not self._open

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


class ScriptedEndpoint:
    """Serves `answer(request, n)`, n counting the requests with these very messages from 0."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any], int], Response],
        *,
        port: int = 0,
        models: tuple[str, ...] = ("served",),
    ):
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self._answer, self._at_once = answer, 0
        self._times: Counter[str] = Counter()
        self._lock, self._closing = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def do_GET(self) -> None:
                listed = [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in models]
                payload = json.dumps({"object": "list", "data": listed}).encode()
                self.send_response(200 if self.path == "/v1/models" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that goes away, as killed ones do, is no error."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ScriptedEndpoint":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def times(self) -> list[int]:
        """How often each question came."""
        return list(self._times.values())

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        at = time.monotonic()
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            request = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
            with self._lock:
                self.seen.append(
                    Seen(
                        request,
                        {name.lower(): value for name, value in handler.headers.items()},
                        handler.path,
                        at,
                    )
                )
                key = digest(request["messages"])
                number = self._times[key]
                self._times[key] += 1
            response = self._answer(request, number)
            if self._closing.wait(response.hang) and response.hang == NEVER:
                response = Response(drop=True)
        finally:
            with self._lock:
                self._at_once -= 1
        if response.drop:
            handler.close_connection = True
            return
        payload = response.payload(request)
        try:
            handler.send_response(response.status)
            for name, value in {"Content-Type": "application/json", **response.headers}.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(payload)))
            handler.end_headers()
            handler.wfile.write(payload)
        except OSError:  # the client was killed, or waited long enough
            handler.close_connection = True
