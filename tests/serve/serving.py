"""A server of the tests' tiny model, and clients of it."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
from PIL import Image

from onethinker_jax.serve.app import Parts, make_app
from onethinker_jax.serve.arguments import Arguments, Limits
from onethinker_jax.serve.server import Server, make_parts
from tests.data_pipeline.making import picture, write_video
from tests.waiting import HANG_S

SLOTS, NEW = 3, 40


SMALL: dict[str, Any] = {
    "port": 0,
    "prompt_tokens": 256,
    "prompt_patches": 512,
    "prompt_buckets": 1,
    "video_max_frames": 4,
    "video_max_pixels": 4096,
    "media_workers": 1,
}
"""What servers and pages of the tests' tiny model have in common."""


def arguments_for(model: Path, **changes: Any) -> Arguments:
    settings: dict[str, Any] = SMALL | {
        "prompt_slots": SLOTS,
        "max_new_tokens": NEW,
        "served_model_name": "tiny",
        "limits": Limits(samples=8, images=3, videos=2, body_bytes=2**20, video_seconds=8, pixels=2**16),
    }
    return Arguments(model=model, **settings | changes)


@dataclass(frozen=True)
class Running:
    """A server that runs in a thread."""

    server: Server
    parts: Parts

    @property
    def root(self) -> str:
        return self.server.root

    def client(self, **options: Any) -> openai.OpenAI:
        settings = {"api_key": "none", "max_retries": 0, "timeout": HANG_S}
        return openai.OpenAI(base_url=self.server.url, **settings | options)


@contextmanager
def running(parts: Parts, **changes: Any) -> Iterator[Running]:
    """The server of these parts, `changes` of its arguments apart, until the block ends."""
    parts = replace(parts, arguments=replace(parts.arguments, **changes))
    server = Server(parts.arguments, make_app(parts))
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    try:
        yield Running(server, parts)
    finally:
        server.stop()
        thread.join(HANG_S)
        assert not thread.is_alive()


@contextmanager
def served(model: Path, **changes: Any) -> Iterator[Running]:
    with running(make_parts(arguments_for(model, **changes))) as one:
        yield one


def image_url(height: int = 64, width: int = 64, seed: int = 0) -> str:
    content = io.BytesIO()
    Image.fromarray(picture(height, width, seed)).save(content, "PNG")
    return data_url(content.getvalue(), "image/png")


def video_url(folder: Path, seconds: float = 2.0) -> str:
    path = write_video(folder / "video.mp4", [n / 2 for n in range(round(2 * seconds))], size=(64, 64))
    return data_url(path.read_bytes(), "video/mp4")


def data_url(content: bytes, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def user(*parts: str | dict[str, Any]) -> list[Any]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def video(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}
