"""The server's paths: OpenAI's chat completions and models, vLLM's tokenize, health and metrics."""

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes
from onethinker_jax.model.generation.running_batch import SampleRequest
from onethinker_jax.serve.answering import Answering, Post
from onethinker_jax.serve.arguments import Arguments
from onethinker_jax.serve.engine import Engine, Job, Piece
from onethinker_jax.serve.errors import Refused, wrong
from onethinker_jax.serve.guard import Guard
from onethinker_jax.serve.metrics import ServeMetrics
from onethinker_jax.serve.replies import Reply
from onethinker_jax.serve.requests.fields import ChatRequest, TokenizeRequest, parsed
from onethinker_jax.serve.requests.prompts import PromptMaker

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Parts:
    """What the paths are made of."""

    arguments: Arguments
    api_key: bytes | None
    engine: Engine
    maker: PromptMaker
    metrics: ServeMetrics
    tokens: TokenBytes


class Api:
    """What the paths do."""

    def __init__(self, parts: Parts):
        self._parts, self._arguments, self._metrics = parts, parts.arguments, parts.metrics
        self._created = int(time.time())

    async def chat(self, body: bytes, answering: Answering) -> None:
        """`POST /v1/chat/completions`. Raises Refused."""
        began = time.monotonic()
        request = await self._parsed(ChatRequest, body)
        del body
        self._check(request)
        job, reply, stream = await self._prepared(request)
        del request  # with its media
        async with contextlib.aclosing(self._pieces(job, reply.samples, began)) as pieces:
            if stream:
                await answering.events(_chunks(reply, pieces))
            else:
                await answering.json(200, await _whole(reply, pieces))
        self._metrics.seconds.observe(time.monotonic() - began)

    async def _prepared(self, request: ChatRequest) -> tuple[Job, Reply, bool]:
        """The request as the engine takes it, its reply, and whether that is streamed. Raises Refused."""
        prompt = await self._parts.maker.prompt(request.messages, request.media_io_kwargs.video)
        reply = Reply(
            self._arguments.name,
            prompt.opening,
            self._parts.tokens,
            request.logprobs,
            request.n,
            len(prompt.tokens),
            include_usage=request.stream_options.include_usage,
        )
        self._metrics.prompt_tokens.inc(len(prompt.tokens))
        job = Job(self._sampled(request, prompt), request.stop, request.logprobs, request.top_logprobs)
        return job, reply, request.stream

    async def tokenize(self, body: bytes, answering: Answering) -> None:
        """`POST /tokenize`. Raises Refused."""
        request = await self._parsed(TokenizeRequest, body)
        if request.prompt is not None:
            tokens = await self._parts.maker.tokens(request.prompt)
        else:
            tokens = (await self._parts.maker.prompt(request.messages or [])).tokens.tolist()
        answer: dict[str, Any] = {"count": len(tokens), "max_model_len": self._longest, "tokens": tokens}
        if request.return_token_strs:
            named = (self._parts.tokens.named(token) for token in tokens)
            answer["token_strs"] = [name.decode("utf-8", "replace") for name in named]
        await answering.json(200, answer)

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`. Raises Refused."""
        self._check_name(request.path_params["name"])
        return JSONResponse(self._model())

    async def health(self, _: Request) -> Response:
        """`GET /health`: 200 where answers can be expected."""
        well = self._parts.engine.healthy
        return JSONResponse({"status": "ok" if well else "the device fails"}, 200 if well else 503)

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @property
    def _longest(self) -> int:
        return self._arguments.prompt_tokens + self._arguments.max_new_tokens

    def _model(self) -> dict[str, Any]:
        name = self._arguments.name
        owner = {"object": "model", "created": self._created, "owned_by": "onethinker_jax"}
        return {"id": name, **owner, "max_model_len": self._longest}

    async def _parsed(self, kind: type[M], body: bytes) -> M:
        """The request in a body, in a thread where it is long. Raises Refused."""
        request = await asyncio.to_thread(parsed, kind, body) if len(body) > 2**16 else parsed(kind, body)
        self._check_name(getattr(request, "model", None))
        return request

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._arguments.name:
            said = f"there is no model {name[:80]!r}; there is {self._arguments.name!r}"
            raise Refused(404, said, code="model_not_found", field="model")

    def _check(self, request: ChatRequest) -> None:
        limits, longest = self._arguments.limits, self._arguments.max_new_tokens
        if request.n > limits.samples:
            raise wrong(f"n: {request.n} answers, more than the {limits.samples} allowed", "n")
        if (request.most_tokens or 1) > longest:
            said = f"max_tokens: {request.most_tokens}, more than the {longest} allowed"
            raise wrong(said, "max_tokens")

    def _sampled(self, request: ChatRequest, prompt: Example) -> SampleRequest[Example]:
        return SampleRequest(
            prompt=prompt,
            tokens=len(prompt.tokens),
            patches=len(prompt.patches),
            max_new_tokens=request.most_tokens or self._arguments.max_new_tokens,
            samples=request.n,
            seed=secrets.randbits(32) if request.seed is None else request.seed % 2**32,
            temperature=request.temperature,
            top_k=max(request.top_k, 0),
            top_p=request.top_p,
            min_p=request.min_p,
            top_logprobs=request.top_logprobs > 0,
        )

    async def _pieces(self, job: Job, answers: int, began: float) -> AsyncGenerator[Piece, None]:
        """The pieces of a job's answers until all are through; closed before, the job is dropped."""
        first = True
        async with contextlib.aclosing(self._parts.engine.answers(job, answers)) as arriving:
            async for pieces in arriving:
                if first:
                    self._metrics.first_token.observe(time.monotonic() - began)
                    first = False
                self._metrics.generated_tokens.inc(len(pieces))
                for piece in pieces:
                    yield piece


async def _whole(reply: Reply, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
    found: dict[int, list[Piece]] = defaultdict(list)
    async for piece in pieces:
        found[piece.sample].append(piece)
    return reply.whole(found)


async def _chunks(reply: Reply, pieces: AsyncIterator[Piece]) -> AsyncIterator[dict[str, Any]]:
    begun: set[int] = set()
    count = 0
    async for piece in pieces:
        count += 1
        if piece.sample not in begun:
            begun.add(piece.sample)
            yield reply.begun(piece.sample)
        if (chunk := reply.chunk(piece)) is not None:
            yield chunk
    if reply.include_usage:
        yield reply.counted(count)


def make_app(parts: Parts) -> Starlette:
    """The ASGI application; the engine decodes while it is up."""
    api = Api(parts)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        parts.engine.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            await asyncio.to_thread(parts.engine.stop)
            parts.maker.close()

    def post(path: str, work: Any) -> Route:
        answer = Post(path, work, parts.arguments.limits, parts.metrics)
        return Route(path, answer, methods=["POST"])

    async def refused(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = Refused(error.status_code, f"{error.detail}: see /v1/models and /v1/chat/completions")
        assert isinstance(error, Refused)
        return JSONResponse(error.body(), error.status, headers=error.headers)

    app = Starlette(
        routes=[
            post("/v1/chat/completions", api.chat),
            post("/tokenize", api.tokenize),
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/health", api.health),
            Route("/metrics", api.metrics),
        ],
        exception_handlers={HTTPException: refused, Refused: refused},
        lifespan=life,
    )

    def count(status: int) -> None:
        parts.metrics.requests.labels("any", status).inc()

    arguments = parts.arguments
    app.add_middleware(Guard, arguments=arguments, key=parts.api_key, refused=count)  # pyright: ignore[reportArgumentType]
    return app
