"""A path's way from bytes to bytes: bodies are bounded, a client's going is noticed, every error is an answer."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from onethinker_jax.serve.arguments import Limits
from onethinker_jax.serve.errors import Refused, busy
from onethinker_jax.serve.metrics import ServeMetrics

logger = logging.getLogger("onethinker_jax.serve")

COME_BACK_SECONDS = 2


class _Gone(Exception):
    """The client hung up."""


class Answering:
    """One response, whole or as events."""

    def __init__(self, send: Send):
        self._send = send
        self.status: int | None = None
        """The status, once the response has begun."""

    async def json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """The whole response."""
        self.status = status
        content = dumped(body)
        fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self._begin(fields)
        await self._send({"type": "http.response.body", "body": content})

    async def events(self, chunks: AsyncIterator[dict[str, Any]]) -> None:
        """Server-sent events; the response begins with the first one."""
        async for chunk in chunks:
            if self.status is None:
                self.status = 200
                await self._begin(
                    {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
                )
            await self.event(dumped(chunk))
        await self.event(b"[DONE]", more=False)

    async def event(self, data: bytes, *, more: bool = True) -> None:
        """One event; the last one where there are no more."""
        body = b"data: " + data + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _begin(self, headers: dict[str, str]) -> None:
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": self.status, "headers": fields})


def dumped(body: dict[str, Any]) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


Work = Callable[[bytes, Answering], Awaitable[None]]


class Post:
    """A path that takes JSON: one ASGI application, so that a client that goes away is noticed at any time."""

    def __init__(self, path: str, work: Work, limits: Limits, metrics: ServeMetrics):
        self._path, self._work, self._limits, self._metrics = path, work, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        answering, request = Answering(send), Request(scope, receive)
        limits = self._limits
        status: object = "gone"
        try:
            with self._admitted():
                try:
                    async with asyncio.timeout(limits.seconds):
                        # No name here keeps the body, which may be large, while the answer is drawn.
                        work = self._work(await _body(request, limits.body_bytes), answering)
                        await _unless_gone(receive, work)
                except TimeoutError:
                    said = f"not answered within the {limits.seconds:g} seconds allowed"
                    raise Refused(504, said, code="deadline") from None
            status = answering.status
        except Refused as refused:
            status = await self._refuse(answering, refused)
        except (_Gone, ClientDisconnect):
            pass
        except Exception:
            logger.exception("%s: a request failed", self._path)
            status = await self._refuse(answering, Refused(500, "an error of the server; its log says more"))
        finally:
            self._metrics.requests.labels(self._path, status).inc()

    async def _refuse(self, answering: Answering, refused: Refused) -> int:
        """Says why; inside a stream that has begun as its last event. Returns the status."""
        with contextlib.suppress(OSError):
            if answering.status is None:
                await answering.json(refused.status, refused.body(), refused.headers)
            else:
                await answering.event(dumped(refused.body()), more=False)
        return refused.status

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """Counts the request; raises Refused where there are too many."""
        metrics, most = self._metrics, self._limits.requests
        if metrics.under_way >= most:
            raise busy(
                f"{most} requests are under way, as many as are taken; come back later", COME_BACK_SECONDS
            )
        metrics.under_way += 1
        try:
            yield
        finally:
            metrics.under_way -= 1


async def _body(request: Request, most: int) -> bytes:
    """The request's JSON, unread where it says that it is something else. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "the body must be JSON, with Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a compressed body is not read")
    too_large = Refused(413, f"the request has more than the {most} bytes allowed", code="too_large")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > most:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_large
    return bytes(body)


async def _unless_gone(receive: Receive, work: Awaitable[None]) -> None:
    """Runs the work; ends it and raises _Gone when the client hangs up first."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        await task
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
