"""Connections on which the headers of a request must arrive in time: uvicorn waits for them as long as it takes."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def timed_connections(seconds: float) -> type[asyncio.Protocol]:
    """The protocol of connections that are closed where a request's headers are not through within `seconds`.

    The time begins when the connection is made, and later with a further request's first byte. From the last header on
    `limits.seconds` counts.
    """

    class TimedConnection(_TimedConnection):
        header_seconds = seconds

    return TimedConnection


class _TimedConnection(H11Protocol):
    header_seconds: float

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
