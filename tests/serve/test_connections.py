"""Clients that do not finish what they send, at the socket."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from onethinker_jax.serve.connections import timed_connections
from tests.serve.serving import Running
from tests.waiting import HANG_S

HEAD = b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BODY = b'{"prompt": "Hello"}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Of a server that waits a second and a half for headers."""
    opened = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echo, http=timed_connections(1.5), ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[opened]), daemon=True)
    thread.start()
    yield opened.getsockname()
    server.should_exit = True
    thread.join(HANG_S)
    opened.close()


def connected(address: tuple[str, int]) -> socket.socket:
    opened = socket.create_connection(address)
    opened.settimeout(HANG_S)
    return opened


def answer(opened: socket.socket) -> bytes:
    """All that comes until it has the end of a JSON object, or the connection is closed."""
    got = b""
    while not got.endswith(b"}") and (more := opened.recv(65536)):
        got += more
    return got


def test_headers_that_do_not_end(address: tuple[str, int]) -> None:
    with connected(address) as nothing, connected(address) as word, connected(address) as lines:
        word.sendall(b"POST")
        lines.sendall(HEAD)
        assert [one.recv(100) for one in (nothing, word, lines)] == [b"", b"", b""]  # closed


def test_headers_that_drip(address: tuple[str, int]) -> None:
    """A byte now and then does not put the end off."""
    with connected(address) as opened:
        opened.sendall(HEAD + b"X-Long: ")
        opened.settimeout(0.02)
        with pytest.raises(ConnectionError):
            while True:
                with contextlib.suppress(TimeoutError):
                    assert opened.recv(100) == b""
                    raise ConnectionResetError
                opened.sendall(b"a")


def test_a_slow_body_and_a_second_request_are_another_matter(address: tuple[str, int]) -> None:
    """Of a request whose headers are through, the body may take longer; the next one's headers may not."""
    with connected(address) as slow:
        slow.sendall(WHOLE + BODY[:5])
        with connected(address) as other:
            other.sendall(HEAD)
            assert other.recv(100) == b""  # its time is over, which began later
        slow.sendall(BODY[5:])
        assert answer(slow).startswith(b"HTTP/1.1 200")
        slow.sendall(WHOLE + BODY)
        assert answer(slow).startswith(b"HTTP/1.1 200")
        slow.sendall(HEAD)
        assert slow.recv(100) == b""


def test_the_server_has_such_connections(running_server: Running) -> None:
    config, limits = running_server.server._uvicorn.config, running_server.parts.arguments.limits
    assert getattr(config.http, "header_seconds", None) == limits.header_seconds == 20
