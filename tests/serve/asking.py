"""A request to an ASGI application, without a network: what it sends, and when the client goes away."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


def asked(
    app: Any,
    path: str = "/v1/chat/completions",
    body: Any = b"",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    parts: Iterable[bytes] | None = None,
) -> Reply:
    """The reply. `parts`: the body as it comes, the last one of which never ends the request."""
    given = {"host": "127.0.0.1:8000", "content-type": "application/json", **(headers or {})}
    coming = [(part, True) for part in parts] if parts is not None else [(_bytes(body), False)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not coming:
            await asyncio.get_running_loop().create_future()  # for ever: the client waits
        part, more = coming.pop(0)
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    asyncio.run(app(scope, receive, send))
    start, *rest = sent
    named = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Reply(start["status"], named, b"".join(message.get("body", b"") for message in rest))


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()
