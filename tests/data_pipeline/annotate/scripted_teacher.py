"""A teacher that answers from the truth, plus noise, over a real HTTP endpoint that can fail in every way.

    python -m tests.data_pipeline.annotate.scripted_teacher RECORDS.json --port 8123

serves the records of a file so that annotation can be tried without a model.
"""

import argparse
import hashlib
import json
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from onethinker_jax.data_pipeline.annotate.teacher_prompt import SentMedia, request_messages
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.records.record import Record, read_records
from onethinker_jax.rewards.answers import unwrap_answer
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


class ScriptedTeacher:
    """Serves `answer(request, n)`, n counting the requests with these very messages from 0."""

    def __init__(self, answer: Callable[[dict[str, Any], int], Response], *, port: int = 0):
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

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that goes away, as killed ones do, is no error."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ScriptedTeacher":
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


def worked(answer: str, about: str = "what is asked for") -> str:
    """A response in the wanted form."""
    return (
        f"<think>I look at the picture and search for {about}. I compare what I find there with the question, "
        f"and there is only one thing that it can mean. So the answer is {answer}.</think>\n<answer>{answer}</answer>"
    )


class Truthful:
    """Answers the questions about records: truly, or as `noise` changes the true response."""

    def __init__(
        self,
        records: list[Record],
        sent: SentMedia,
        noise: Callable[[Record, str, int], Response] | None = None,
    ):
        reader = MediaReader()
        self.records = {digest(request_messages(record, reader, sent)): record for record in records}
        self._noise = noise

    def __call__(self, request: dict[str, Any], number: int) -> Response:
        record = self.records[digest(request["messages"])]
        truth = unwrap_answer(record.answer)
        return self._noise(record, truth, number) if self._noise else Response(worked(truth))


def noisy(record: Record, truth: str, number: int) -> Response:
    """Two of three answers are good; the others have one of the errors that teachers have."""
    rng = random.Random(f"{record.problem_id}/{number}")
    good = worked(truth)
    if rng.random() < 0.66:
        return Response(worked(_shaken(truth, rng, 12)) if truth.startswith("{") else good)
    return rng.choice(
        (
            Response(worked(_shaken(truth, rng, 300) if truth.startswith("{") else f"{truth[::-1]}7")),
            Response(good[: len(good) // 2], "length"),
            Response(truth),
            Response(f"<think>Two words.</think><answer>{truth}</answer>"),
            Response(
                f"<think>{'I look again and see nothing new here at all. ' * 12}</think><answer>{truth}</answer>"
            ),
            Response(
                f"<think>我看了一下这张图片，答案应该是第一个选项，因为它最符合题目的要求，所以选择它。</think><answer>{truth}</answer>"
            ),
            Response(good.replace("So the answer", "The ground truth says the answer")),
            Response(good.replace("I look at", "I cannot see the image, but look at")),
            Response("", "content_filter"),
            Response(good, hang=0.05),
        )
    )


def _shaken(truth: str, rng: random.Random, by: float) -> str:
    """The JSON with its coordinates moved, its times a little."""

    def move(value: Any, by: float) -> Any:
        if isinstance(value, dict):
            return {key: move(item, 0.004 * by if key == "time" else by) for key, item in value.items()}
        if isinstance(value, list):
            return [move(item, by) for item in value]
        return min(max(round(value + rng.uniform(-by, by), 1), 0), 1000)

    return json.dumps(move(json.loads(truth), by))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves noisy true answers to the records of a file.")
    parser.add_argument("records", type=Path)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--seconds", type=float, default=0.3, help="an answer takes, about")
    options = parser.parse_args()
    truthful = Truthful(read_records(options.records), SentMedia(), noisy)
    rng = random.Random(0)

    def answer(request: dict[str, Any], number: int) -> Response:
        if rng.random() < 0.03:
            return failure(500, "an internal error")
        if rng.random() < 0.02:
            return failure(429, "too many requests", headers={"Retry-After": "1"})
        time.sleep(options.seconds * rng.uniform(0.5, 1.5))
        return truthful(request, number)

    with ScriptedTeacher(answer, port=options.port) as teacher:
        sys.stdout.write(f"{len(truthful.records)} records at {teacher.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
