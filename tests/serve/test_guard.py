"""Who is let in, asked as an ASGI server asks: by name, by the page that a browser shows, by key."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.serve.arguments import Arguments
from onethinker_jax.serve.guard import Guard

KEY = b"a key of sixteen"
LOCAL = Arguments(model=Path("model"))
FAR = Arguments(
    model=Path("model"),
    host="0.0.0.0",
    api_key_file=Path("key"),
    tls_certificate=Path("certificate"),
    tls_key=Path("key"),
)


def answer(guard: Guard, kind: str = "http", path: str = "/", **headers: str) -> Any:
    """ "in", or the status that it refuses with; "closed" of a websocket."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "query_string": b"", "headers": fields, "scheme": kind}
    asyncio.run(guard(scope, receive, send))
    if not sent:
        return "in"
    return "closed" if sent[0]["type"] == "websocket.close" else sent[0]["status"]


async def nothing(*_: Any) -> None:
    """The application behind it."""


def basic(password: bytes, user: bytes = b"") -> str:
    return f"Basic {base64.b64encode(user + b':' + password).decode()}"


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"host": "127.0.0.1:7860"}, True),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, True),
        ({"host": "[::1]:7860", "origin": "http://[::1]:7860"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "127.0.0.1:7860", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:8888"}, False),  # another server's page
        ({"host": "127.0.0.1:7860", "origin": "null"}, False),  # a page in a frame without an origin
        ({"host": "[evil"}, False),
        ({}, False),
    ],
)
def test_a_page_of_this_machine_asks_for_itself_alone(
    kind: str, headers: dict[str, str], let_in: bool
) -> None:
    assert (answer(Guard(nothing, LOCAL, None, browsers=True), kind, **headers) == "in") is let_in


def test_a_refused_websocket_is_closed_and_counted() -> None:
    heard: list[int] = []
    guard = Guard(nothing, LOCAL, None, refused=heard.append, browsers=True)
    assert answer(guard, "websocket", host="evil.example") == "closed"
    assert answer(guard, host="evil.example") == 421
    assert heard == [421, 421]


@pytest.mark.parametrize(
    ("authorization", "of_browsers", "of_clients"),
    [
        (basic(KEY), "in", 401),
        (basic(KEY, b"anybody"), "in", 401),
        (f"Bearer {KEY.decode()}", "in", "in"),
        (basic(KEY[:-1]), 401, 401),
        (basic(b""), 401, 401),
        ("Basic not base64", 401, 401),
        (KEY.decode(), 401, 401),
    ],
)
def test_a_browser_sends_the_key_as_a_password(authorization: str, of_browsers: Any, of_clients: Any) -> None:
    for browsers, wanted in ((True, of_browsers), (False, of_clients)):
        guard = Guard(nothing, FAR, KEY, browsers=browsers)
        assert answer(guard, host="models.example", authorization=authorization) == wanted
        assert answer(guard, "websocket", host="models.example") == "closed"
