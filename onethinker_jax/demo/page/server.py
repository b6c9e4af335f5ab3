"""The page as a whole: the models, their engines, the visitors' desks, and a socket that is open until SIGTERM."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import resources

from fastapi import FastAPI
from nicegui import ui
from starlette.types import ASGIApp, Receive, Scope, Send

from onethinker_jax.data_pipeline.processor.processor_config import read_settings
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.demo.page.arguments import PageArguments
from onethinker_jax.demo.page.desk import Desk, House
from onethinker_jax.demo.page.examples import examples_of_run, read_examples
from onethinker_jax.demo.page.masks import MaskMaker
from onethinker_jax.demo.page.thinking import Thinker
from onethinker_jax.model.config import Qwen3VLConfig
from onethinker_jax.serve.guard import Guard
from onethinker_jax.serve.server import Server, make_parts

logger = logging.getLogger("onethinker_jax.serve")

RECONNECT_SECONDS = 15.0
"""That a visitor's connection may be lost, or a busy machine not answer, before the visitor counts as gone."""
FORM_BYTES = 2**16
"""Of a request that carries a file, beside the file."""


def fitted(arguments: PageArguments) -> PageArguments:
    """The arguments with prompts and answers that the model's positions hold, and videos that a prompt holds.

    Raises ConfigError, ProcessorError.
    """
    positions = Qwen3VLConfig.from_directory(arguments.model).text.max_position_embeddings
    answer = min(arguments.max_new_tokens, positions // 4)
    tokens = min(arguments.prompt_tokens, positions - answer)
    patches = min(arguments.prompt_patches, 4 * tokens)
    pixels = arguments.video_total_pixels
    if pixels is None:
        settings = read_settings(arguments.model)
        sizes = settings.sizes
        of_patch = sizes.temporal_patch_size * sizes.patch_size**2
        pixels = min(settings.video_total.max_pixels, 3 * patches // 4 * of_patch)
    return replace(
        arguments,
        max_new_tokens=answer,
        prompt_tokens=tokens,
        prompt_patches=patches,
        video_total_pixels=pixels,
    )


def make_house(arguments: PageArguments) -> House:
    """Loads examples and models and compiles; nothing listens yet.

    Raises UserError: what `make_parts` raises, and RecordError of an example file.
    """
    examples = _examples(arguments)
    thinkers = [Thinker(make_parts(fitted(one))) for one in arguments.models()]
    first = thinkers[0].parts.arguments
    logger.info("prompts of %d tokens, answers of %d", first.prompt_tokens, first.max_new_tokens)
    return House(thinkers, examples, MaskMaker(arguments.sidecar), arguments.limits)


def _examples(arguments: PageArguments) -> list[Record]:
    if arguments.examples is not None:
        return read_examples(arguments.examples, arguments.media_root)
    found = examples_of_run(arguments.model)
    if found is None:
        logger.info("no examples: --examples FILE names a record file")
        return []
    file, root = found
    return read_examples(file, arguments.media_root or root)


def make_app(house: House, arguments: PageArguments) -> ASGIApp:
    """The ASGI application; the engines decode while it is up. Once a process: NiceGUI has one page tree in each."""
    engines = [thinker.parts.engine for thinker in house.thinkers]

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        for engine in engines:
            engine.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            for thinker in house.thinkers:
                await asyncio.to_thread(thinker.parts.engine.stop)
                thinker.parts.maker.close()
            await asyncio.to_thread(house.masks.close)

    files = resources.files("onethinker_jax")
    style = files.joinpath("data_pipeline/drawing/report_page.css").read_text("utf-8")
    style += files.joinpath("demo/page/page.css").read_text("utf-8")
    script = files.joinpath("demo/page/page.js").read_text("utf-8")

    def root() -> None:
        ui.add_css(style)
        ui.add_body_html(f"<script>{script}</script>")
        ui.colors(primary="#3b63f3")
        ui.html("<h1>Watch the model think</h1>", sanitize=False)
        Desk(house)

    app = FastAPI(lifespan=life, openapi_url=None)
    app.add_middleware(Bounded, most=arguments.limits.media_bytes + FORM_BYTES)
    app.add_middleware(Guard, arguments=arguments, key=arguments.api_key(), browsers=True)
    names = ", ".join(thinker.name for thinker in house.thinkers)
    ui.run_with(
        app,
        root=root,
        title=names,
        favicon="💭",
        dark=None,
        reconnect_timeout=RECONNECT_SECONDS,
        tailwind=False,
        show_welcome_message=False,
    )
    return app


class Bounded:
    """Refuses bodies of more bytes than allowed before they are read."""

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            said = dict(scope["headers"]).get(b"content-length", b"")
            status = 411 if not said.isdigit() else 413 if int(said) > self._most else None
            if status is not None:
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
        await self._app(scope, receive, send)


def serve(arguments: PageArguments) -> None:
    """Serves the page until a signal. Raises what `make_house` raises, and UsageError where it cannot listen."""
    house = make_house(arguments)
    server = Server(arguments, make_app(house, arguments), websockets=True)
    signal.signal(signal.SIGTERM, lambda *_: None)  # as in serve.server
    names = " and ".join(thinker.name for thinker in house.thinkers)
    logger.info("%s: open %s/ in a browser", names, server.root)
    server.run()
