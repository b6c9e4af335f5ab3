"""The endpoint over real HTTP: what is sent, every way to fail, and the limits that are kept."""

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest

from onethinker_jax.data_pipeline.annotate.teacher import TeacherSettings
from onethinker_jax.endpoint import endpoint as module
from onethinker_jax.endpoint.endpoint import Endpoint, EndpointError, Reply, Unanswered, retry_after
from onethinker_jax.endpoint.pace import Pace
from tests.endpoint.scripted_endpoint import NEVER, Response, ScriptedEndpoint, failure
from tests.waiting import HANG_S, wait_until

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Which letter?"}]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "secret-7")


def settings(url: str, **changes: Any) -> TeacherSettings:
    quick = {"backoff": 0.01, "timeout": HANG_S, "retries": 3, "api_key_env": "ENDPOINT_KEY"}
    return TeacherSettings(base_url=url, model="big", **{**quick, **changes})


def ask(of: TeacherSettings, questions: int = 1) -> tuple[list[Reply], Endpoint]:
    """All at once; the replies, and the teacher for its counts."""

    async def run() -> tuple[list[Reply], Endpoint]:
        async with Endpoint(of) as endpoint:
            return await asyncio.gather(*(endpoint.ask(QUESTION) for _ in range(questions))), endpoint

    return asyncio.run(run())


def first_then_good(*first: Response) -> Callable[[dict, int], Response]:
    return lambda _, number: first[number] if number < len(first) else Response("fine")


def test_what_is_sent_and_read() -> None:
    with ScriptedEndpoint(lambda *_: Response("fine")) as server:
        (reply,), endpoint = ask(settings(server.url, temperature=0.5, extra_body='{"top_k": 5}'))
    (seen,) = server.seen
    assert (reply.text, reply.finish_reason) == ("fine", "stop") and reply.seconds > 0
    assert reply.prompt_tokens == len(json.dumps(QUESTION)) // 4 and reply.completion_tokens == 2
    assert seen.path == "/v1/chat/completions" and seen.headers["authorization"] == "Bearer secret-7"
    assert seen.request == {
        "model": "big",
        "messages": QUESTION,
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 4096,
        "top_k": 5,
    }
    assert not endpoint.tries_again and endpoint.in_flight == 0


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (failure(500, "boom"), "server error 500: boom"),
        (failure(503, "loading"), "server error 503: loading"),
        (Response(status=502, body=b"<html>bad gateway</html>"), "server error 502"),
        (failure(429, "slow down"), "rate limit 429: slow down"),
        (failure(408, "too slow"), "server error 408"),
        (Response(drop=True), "no connection"),
        (Response(body=b'{"choices": [{"mess'), "not JSON of the API"),
        (Response(body=b"<html>hello</html>", headers={"Content-Type": "text/html"}), "not JSON of the API"),
        (Response(body=b"[1, 2]"), "not JSON of the API"),
        (Response(body=b"{}"), "no choices"),
        (Response(body=b'{"choices": []}'), "no choices"),
        (Response(body=b'{"choices": 7}'), "no choices"),
        (Response(body=b'{"choices": [{}]}'), "no message"),
        (Response(body=b'{"choices": [null]}'), "no message"),
        (Response(body=b'{"choices": [{"message": {"content": 5}}]}'), "no message"),
    ],
)
def test_errors_are_tried_again(error: Response, cause: str) -> None:
    with ScriptedEndpoint(first_then_good(error, error)) as server:
        (reply,), endpoint = ask(settings(server.url))
        assert reply.text == "fine" and len(server.seen) == 3
        ((why, count),) = endpoint.tries_again.items()
        assert cause in why and count == 2
    with ScriptedEndpoint(lambda *_: error) as server:
        with pytest.raises(Exception, match=cause) as caught:
            ask(settings(server.url, retries=1))
        assert caught.type in (Unanswered, EndpointError) and "\n" not in str(caught.value)
        assert len(server.seen) == 2


def test_an_answer_that_does_not_come_in_time() -> None:
    """On a busy machine the good answer may be late too, and is then asked for once more."""
    never, cause = Response(hang=NEVER), "no answer within 0.4 s"
    with ScriptedEndpoint(first_then_good(never, never)) as server:
        (reply,), endpoint = ask(settings(server.url, timeout=0.4, retries=100))
        assert reply.text == "fine" and set(endpoint.tries_again) == {cause}
        assert endpoint.tries_again[cause] >= 2
    with ScriptedEndpoint(lambda *_: never) as server:
        with pytest.raises(Unanswered, match=f"{cause}, 2 times"):
            ask(settings(server.url, timeout=0.4, retries=1))
        assert len(server.seen) <= 2


def test_retry_after_holds_for_all() -> None:

    def answer(_: dict, number: int) -> Response:
        return Response("fine") if number else failure(429, "wait", headers={"Retry-After": "0.6"})

    with ScriptedEndpoint(answer) as server:
        replies, _ = ask(settings(server.url, concurrency=1), questions=3)
    assert len(replies) == 3 and len(server.seen) == 4
    waits = [seen.at - server.seen[0].at for seen in server.seen[1:]]
    assert min(waits) >= 0.59


def test_reading_retry_after() -> None:
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after": formatdate(1_000_060, usegmt=True)}, now=1_000_000) == 60
    assert retry_after({"retry-after": formatdate(1_000_000, usegmt=True)}, now=1_000_060) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            failure(401, "Incorrect API key"),
            r"does not take the key in ENDPOINT_KEY \(401: Incorrect API key\)",
        ),
        (failure(403, "no"), r"does not take the key in ENDPOINT_KEY \(403: no\)"),
        (failure(404, "no such model"), r"does not know model 'big', or is no API \(404: no such model\)"),
        (failure(429, "pay", code="insufficient_quota"), r"the quota is used up \(429: pay\)"),
    ],
)
def test_what_ends_the_run(error: Response, message: str) -> None:
    with ScriptedEndpoint(lambda *_: error) as server:
        with pytest.raises(EndpointError, match=message) as caught:
            ask(settings(server.url))
        assert str(caught.value).startswith(server.url) and "secret-7" not in str(caught.value)
        assert len(server.seen) == 1


def test_no_key_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENDPOINT_KEY")
    with (
        ScriptedEndpoint(lambda *_: failure(401, "who?")) as server,
        pytest.raises(EndpointError, match="needs a key, but ENDPOINT_KEY is not set"),
    ):
        ask(settings(server.url))


def test_an_unreachable_endpoint() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match=rf"{url} cannot be reached \(no connection: .+\)") as caught:
            ask(settings(url, retries=50))
    assert "\n" not in str(caught.value)


def test_the_client_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "openai"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EndpointError, match=r"openai is not installed; .* pip install -e '\.\[endpoint\]'"):
        Endpoint(settings("http://127.0.0.1:9/v1"))


class _Missing:
    """Finds no module openai."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "openai":
            raise ModuleNotFoundError("No module named 'openai'", name="openai")


def test_an_endpoint_wants_no_limit_of_that_name() -> None:
    with ScriptedEndpoint(lambda *_: Response("fine")) as server:
        ask(settings(server.url, max_tokens=0, extra_body='{"max_completion_tokens": 9}'))
    (seen,) = server.seen
    assert "max_tokens" not in seen.request and seen.request["max_completion_tokens"] == 9


def test_a_refused_question_is_asked_once() -> None:
    with ScriptedEndpoint(lambda *_: failure(400, "image too large")) as server:
        with pytest.raises(Unanswered, match=r"refuses the question \(400: image too large\)"):
            ask(settings(server.url))
        assert len(server.seen) == 1


def test_giving_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 3)

    async def run(url: str) -> None:
        async with Endpoint(settings(url, retries=0)) as endpoint:
            for error in (Unanswered, Unanswered, None, Unanswered, Unanswered, EndpointError):
                if error is None:
                    await endpoint.ask(QUESTION)
                else:
                    with pytest.raises(error, match="400: bad"):
                        await endpoint.ask(QUESTION)

    with ScriptedEndpoint(lambda _, n: Response("fine") if n == 2 else failure(400, "bad")) as server:
        asyncio.run(run(server.url))
        assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("response", "text", "finish"),
    [
        (Response("<think>I", "length"), "<think>I", "length"),
        (Response(None, "content_filter"), "", "content_filter"),
        (Response(None, message={"refusal": "No."}), "", "content_filter"),
        (
            Response("<answer>A</answer>", message={"reasoning_content": " I see. "}),
            "<think>I see.</think>\n<answer>A</answer>",
            "stop",
        ),
        (Response("<answer>A</answer>", message={"reasoning": "b"}), "<think>b</think>\n<answer>A</answer>", "stop"),
        (Response("<think>x</think>", message={"reasoning": "So."}), "<think>x</think>", "stop"),
        (Response("x</think>\n<answer>A</answer>"), "<think>x</think>\n<answer>A</answer>", "stop"),
    ],
)  # fmt: skip
def test_answers_that_are_odd(response: Response, text: str, finish: str) -> None:
    with ScriptedEndpoint(lambda *_: response) as server:
        (reply,), _ = ask(settings(server.url))
    assert (reply.text, reply.finish_reason) == (text, finish)


def test_no_usage_is_no_error() -> None:
    body = {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
    with ScriptedEndpoint(lambda *_: Response(body=json.dumps(body).encode())) as server:
        (reply,), _ = ask(settings(server.url, tokens_per_minute=1e6))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("fine", 0, 0)


def test_concurrency_is_never_exceeded() -> None:
    """None is answered before as many are under way as may be; a moment later still no more are."""

    def answer(_: dict, number: int) -> Response:
        wait_until(lambda: server.most_at_once >= 3)
        return failure(500, "now and then") if number % 5 == 0 else Response("fine", hang=0.03)

    with ScriptedEndpoint(answer) as server:
        replies, endpoint = ask(settings(server.url, concurrency=3, retries=20), questions=24)
    assert len(replies) == 24 and server.most_at_once == 3 and endpoint.in_flight == 0


# ---------------------------------------------------------------- the pace, by a clock of its own


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def times_by(clock: Clock, text: str, **of: Any) -> list[float]:
    """When each of 12 questions came, which are asked one after the other."""
    times: list[float] = []

    def answer(*_: object) -> Response:
        times.append(clock.now - 100)
        return Response(text)

    with ScriptedEndpoint(answer) as server:
        ask(settings(server.url, concurrency=1, **of), questions=12)
    return times


def test_requests_keep_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "Pace", partial(Pace, clock=clock, sleep=clock.sleep))
    times = times_by(clock, "fine", requests_per_minute=60 / 0.05)
    assert times == pytest.approx([0.05 * number for number in range(12)])


def test_tokens_keep_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt and answer come to `tokens`; twenty times that a second let a question through every 50 ms."""
    tokens = len(json.dumps(QUESTION)) // 4 + 7
    clock = Clock()
    monkeypatch.setattr(module, "Pace", partial(Pace, clock=clock, sleep=clock.sleep))
    times = times_by(clock, "x" * 24, tokens_per_minute=60 * 20 * tokens, max_tokens=tokens)
    assert times == pytest.approx([0.05 * number for number in range(12)])


def through(pace: Callable[[Clock], Awaitable[list[tuple[float, float]]]]) -> list[tuple[float, float]]:
    return asyncio.run(pace(Clock()))  # type: ignore[arg-type]


@pytest.mark.parametrize("amounts", [[1.0] * 200, [5.0, 1.0, 9.0] * 40, [30.0] * 10])
def test_no_minute_exceeds_the_limit(amounts: list[float]) -> None:
    async def run(clock: Clock) -> list[tuple[float, float]]:
        pace, taken = Pace(40, clock=clock, sleep=clock.sleep), []
        for number, amount in enumerate(amounts):
            await pace.take(amount)
            taken.append((clock.now, amount))
            if number == len(amounts) // 2:
                clock.now += 500.0  # an idle time saves nothing up
        return taken

    taken = through(run)
    for begin, first in taken:
        within = sum(amount for at, amount in taken if begin <= at < begin + 60 - 1e-6)
        assert within <= 40 + first
    busy = taken[len(taken) // 2][0] - taken[0][0]
    assert busy == pytest.approx(sum(amounts[: len(amounts) // 2]) * 60 / 40)  # and not slower than allowed


def test_a_pace_is_corrected_and_paused() -> None:
    async def run(clock: Clock) -> list[tuple[float, float]]:
        pace, times = Pace(60, clock=clock, sleep=clock.sleep), []
        for change in (
            lambda: None,
            lambda: pace.correct(-6),
            lambda: pace.correct(5),
            lambda: pace.pause(100),
        ):
            await pace.take(10)
            times.append((clock.now, 0.0))
            change()
        await pace.take(1)
        return [*times, (clock.now, 0.0)]

    assert [at - 100 for at, _ in through(run)] == pytest.approx([0, 10, 14, 29, 129])


def test_a_pace_without_limit() -> None:
    async def run(clock: Clock) -> list[tuple[float, float]]:
        pace = Pace(float("inf"), clock=clock, sleep=clock.sleep)
        for _ in range(1000):
            await pace.take(1e9)
        return [(clock.now, 0.0)]

    assert through(run) == [(100.0, 0.0)]
    with pytest.raises(ValueError, match="per_minute 0 must be positive"):
        Pace(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url 'localhost:8000' must look like https://host/v1"),
        ({"model": ""}, "model must not be empty"),
        ({"concurrency": 0}, "concurrency 0 must be positive"),
        ({"requests_per_minute": -1.0}, "requests_per_minute -1.0 must be positive"),
        ({"price_in": float("nan")}, "price_in nan must be 0 or more"),
        ({"top_p": 0.0}, "top_p 0.0 must be"),
        ({"extra_body": "[1]"}, "must be a JSON object"),
        ({"extra_body": "{"}, "is not JSON"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeacherSettings(**{"base_url": "http://h/v1", "model": "m", **changes})


def test_cost() -> None:
    assert settings("http://h/v1", price_in=2.0, price_out=10.0).cost(1e6, 5e5) == 7.0
