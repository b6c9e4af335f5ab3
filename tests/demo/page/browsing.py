"""The page of the tests' tiny model, and a browser that looks at it."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax.demo.page.arguments import PageArguments
from onethinker_jax.demo.page.desk import House
from onethinker_jax.demo.page.server import make_app, make_house
from onethinker_jax.serve.arguments import Limits
from onethinker_jax.serve.engine import Job, Piece
from onethinker_jax.serve.guard import Guard
from onethinker_jax.serve.server import Server
from tests.serve.serving import SMALL
from tests.waiting import HANG_S, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
NEW = 24


def arguments_for(model: Path, **changes: Any) -> PageArguments:
    settings: dict[str, Any] = SMALL | {
        "prompt_slots": 1,
        "max_new_tokens": NEW,
        "limits": Limits(media_bytes=2**18, video_seconds=8, pixels=2**16),
    }
    return PageArguments(model=model, **settings | changes)


class Running:
    """The page in a thread; once a process, as NiceGUI wants it."""

    def __init__(self, arguments: PageArguments):
        self.house: House = make_house(arguments)
        self.app = make_app(self.house, arguments)
        self.server = Server(arguments, self.app, websockets=True)
        self.engines = [thinker.parts.engine for thinker in self.house.thinkers]

    @contextmanager
    def up(self) -> Iterator["Running"]:
        thread = threading.Thread(target=self.server.run, name="page", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.stop()
            thread.join(HANG_S)
            assert not thread.is_alive()

    @contextmanager
    def beyond_loopback(self, arguments: PageArguments) -> Iterator[str]:
        """The address of the same page once more, behind the TLS and the key of these arguments."""
        from nicegui import core

        second = Server(
            arguments, Guard(self.app, arguments, arguments.api_key(), browsers=True), websockets=True
        )
        inner = second._uvicorn
        inner.config.lifespan = "off"  # the engines are up
        assert core.loop is not None  # of the page, to which its sockets belong
        done = asyncio.run_coroutine_threadsafe(inner.serve(sockets=[second._socket]), core.loop)
        try:
            yield second.root.replace(arguments.host, "127.0.0.1")
            wait_until(lambda: not inner.server_state.connections)  # uvicorn cannot close a closing socket
        finally:
            second.stop()
            done.result(HANG_S)

    def busy(self) -> int:
        """Slots in use, and answers that wait for one."""
        return sum(engine.batch.running + engine.batch.waiting for engine in self.engines)

    def hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on each answer stands still after the first tokens."""
        for engine in self.engines:
            monkeypatch.setattr(engine.batch, "step", _once_each(engine.batch.step))

    def say(self, monkeypatch: pytest.MonkeyPatch, *responses: str) -> None:
        """From now on the models say this, one each."""
        for engine, response in zip(self.engines, responses, strict=True):
            monkeypatch.setattr(engine, "answers", _hand_made(response))


def _once_each(step: Any) -> Any:
    going = 3  # steps until the first tokens are there

    def held() -> list[Any]:
        nonlocal going
        if going:
            parts = step()
            going -= bool(parts)
            return parts
        time.sleep(0.01)
        return []

    return held


def _hand_made(response: str) -> Any:
    async def answers(job: Job, count: int = 1) -> AsyncGenerator[list[Piece], None]:
        for letter in response[:-1]:
            yield [Piece(0, letter)]
        yield [Piece(0, response[-1], None, "stop")]

    return answers
