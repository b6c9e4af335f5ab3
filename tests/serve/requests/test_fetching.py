"""Fetching from public addresses only; and that it does fetch, where the test's own server is allowed."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from onethinker_jax.serve.errors import Refused
from onethinker_jax.serve.requests.fetching import Fetcher, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((one, True) for one in ("93.184.216.34", "8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1111")),
        *((one, True) for one in ("2002:0808:0808::1", "64:ff9b::808:808")),
        *((one, False) for one in ("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1")),
        *((one, False) for one in ("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1")),
        *((one, False) for one in ("::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1")),
        *((one, False) for one in ("::ffff:10.0.0.1", "2002:7f00:0001::1", "64:ff9b::7f00:1", "64:ff9b::a00:1")),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),  # Teredo's client is 127.0.0.1
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) == public


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        body = b"content" if self.path == "/file" else b"x" * 5000
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def files() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def fetched(url: str, **options: object) -> bytes:
    return asyncio.run(Fetcher(1000, **options).get(url))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "127.1"]
)
def test_this_machine_is_not_asked(files: int, host: str) -> None:
    with pytest.raises(Refused, match=r"is no public address|no such host") as caught:
        fetched(f"http://{host}:{files}/file")
    assert caught.value.status == 400


def test_what_a_name_means_is_checked_where_the_connection_is_made(files: int, monkeypatch) -> None:
    """A name whose first answer is public and whose next is this machine: the one that was checked is connected to."""
    answers = iter([[ipaddress.ip_address("127.0.0.1")], [ipaddress.ip_address("8.8.8.8")]])
    seen = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple]:
        seen.append(host)
        found = next(answers)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (str(one), port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    allowed = fetched(f"http://a.name:{files}/file", allowed=lambda one: str(one) == "127.0.0.1")
    assert allowed == b"content" and seen[0] == "a.name" and "a.name" not in seen[1:]


def test_files_are_fetched_and_bounded(files: int) -> None:
    def anybody(_: object) -> bool:
        return True

    root = f"http://127.0.0.1:{files}"
    assert fetched(f"{root}/file", allowed=anybody) == b"content"
    for path in ("/large", "/endless"):
        with pytest.raises(Refused, match="more than the 1000 bytes allowed"):
            fetched(root + path, allowed=anybody)
    with pytest.raises(Refused, match="answered with status 302, not 200"):
        fetched(f"{root}/away", allowed=anybody)
    with pytest.raises(Refused, match="cannot be fetched"):
        fetched(f"https://127.0.0.1:{files}/file", allowed=anybody)  # no TLS there
    for url in ("http://", "http:///x", "http://[", "http://a b/", "http://nowhere.invalid/a.png"):
        with pytest.raises(Refused) as caught:
            fetched(url, allowed=anybody)
        assert caught.value.status == 400 and "\n" not in caught.value.message
