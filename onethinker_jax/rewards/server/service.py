"""The calls of `reward.proto`: messages to items, items through a batching queue, results to messages."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np

from onethinker_jax.rewards.backends.types import (
    ItemError,
    MaskBackend,
    MaskJob,
    MaskPrompt,
    TextBackend,
    TextItem,
)
from onethinker_jax.rewards.proto import reward_pb2, reward_pb2_grpc
from onethinker_jax.rewards.server.batching import BatchingQueue, QueueFull
from onethinker_jax.rewards.server.media_cache import CacheFull, MediaCache, MediaHold
from onethinker_jax.rewards.server.service_metrics import ServiceMetrics

UPLOAD_PAUSE_S = 60.0
"""A caller that stops in the middle of its upload for so long is given up."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def text_runner(backend: TextBackend) -> Callable[[Sequence[TextItem]], list[float | Exception]]:
    """A batch's scores, each finite, or errors; raises ValueError naming a score that is not finite."""

    def run(items: Sequence[TextItem]) -> list[float | Exception]:
        scores = [one if isinstance(one, Exception) else float(one) for one in backend.score(items)]
        for score in scores:
            if not isinstance(score, Exception) and not math.isfinite(score):
                raise ValueError(f"the back end gave the score {score}")
        return scores

    return run


def mask_runner(backend: MaskBackend) -> Callable[[Sequence[MaskJob]], list[Any]]:
    """A batch's Masks messages."""

    def message(job: MaskJob, masks: np.ndarray) -> Any:
        if masks.shape != job.frames.shape[:3]:
            raise ValueError(f"the back end gave masks {masks.shape} for frames {job.frames.shape}")
        count, height, width = masks.shape
        bits = np.packbits(masks.reshape(-1)).tobytes()
        return reward_pb2.Masks(count=count, height=height, width=width, bits=bits)

    return lambda jobs: [message(*pair) for pair in zip(jobs, backend.segment(jobs), strict=True)]


class RewardService(reward_pb2_grpc.RewardServiceServicer):
    """The service over one queue for text and one for masks. `describe` is what Describe answers."""

    def __init__(
        self,
        text: BatchingQueue[TextItem, float],
        masks: BatchingQueue[MaskJob, Any],
        media: MediaCache,
        metrics: ServiceMetrics,
        *,
        describe: Any,
        max_calls: int,
    ) -> None:
        self._text, self._masks, self._media, self._metrics = text, masks, media, metrics
        self._describe = describe
        self._max_calls = max_calls
        self._under_way = 0

    async def Describe(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The back ends, their models and the scales of their scores."""
        return self._describe

    async def ScoreText(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A score or an error for each item, in order; all of them on the scale that is named."""
        async with self._call("ScoreText", context):
            await self._check_items(request.items, context)
            items = [TextItem(item.question, item.reference, item.answer) for item in request.items]
            outcomes = await self._outcomes(self._text, items, context)
            results = [
                reward_pb2.TextResult(error=self._error(self._text, outcome))
                if isinstance(outcome, BaseException)
                else reward_pb2.TextResult(score=outcome)
                for outcome in outcomes
            ]
            return reward_pb2.ScoreTextResponse(results=results, scale=self._describe.text_scale)

    async def SegmentImage(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> None:
        """Takes prompts and the images that the cache lacks; sends the hashes of those, then the masks."""
        async with self._call("SegmentImage", context):
            await self._segment(requests, context, video=False)

    async def SegmentVideo(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> None:
        """As `SegmentImage`, of videos: a mask for every frame."""
        async with self._call("SegmentVideo", context):
            await self._segment(requests, context, video=True)

    @contextlib.asynccontextmanager
    async def _call(self, method: str, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
        """Counts the call; refuses it where there are too many already."""
        with self._metrics.call(method, context):
            if self._under_way >= self._max_calls:
                message = f"the server is busy with {self._max_calls} calls"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
            self._under_way += 1
            try:
                yield
            finally:
                self._under_way -= 1

    async def _segment(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext, *, video: bool
    ) -> None:
        first = await _next(requests, context)
        if first.WhichOneof("part") != "items":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call does not begin with its items")
        items = first.items.items
        await self._check_items(items, context)
        with self._media.hold() as held:
            await self._obtain(items, held, requests, context)
            jobs = [_job(item, held, video=video) for item in items]
            queued = [job for job in jobs if isinstance(job, MaskJob)]
            done = iter(await self._outcomes(self._masks, queued, context))
            for job in jobs:
                outcome = next(done) if isinstance(job, MaskJob) else job
                if isinstance(outcome, BaseException):
                    result = reward_pb2.MaskResult(error=self._error(self._masks, outcome))
                else:
                    result = reward_pb2.MaskResult(masks=outcome)
                await context.write(reward_pb2.SegmentResponse(result=result))

    async def _obtain(
        self,
        items: Sequence[Any],
        held: MediaHold,
        requests: AsyncIterator[Any],
        context: grpc.aio.ServicerContext,
    ) -> None:
        """Holds the media of all well-formed items: from the cache, by upload, or by another call's upload.

        A call waits for others only when it has no upload of its own to receive: no two wait for each other.
        """
        sizes: dict[bytes, int] = {}
        for item in items:
            with contextlib.suppress(ItemError):
                sizes.setdefault(item.frames.sha256, _frames_bytes(item.frames))
        if sum(sizes.values()) > self._media.capacity:
            total = f"the call's media take {sum(sizes.values())} bytes, the limit is {self._media.capacity}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, total)
        while missing := [digest for digest in sizes if not held.take(digest)]:
            try:
                begun = [held.begin(digest, sizes[digest]) for digest in missing]
            except CacheFull as error:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            uploads = [upload for upload in begun if upload is not None]
            if not uploads:
                await self._media.wait_for_upload(missing)
                continue
            digests = [upload.digest for upload in uploads]
            await context.write(reward_pb2.SegmentResponse(missing=reward_pb2.MissingMedia(sha256=digests)))
            try:
                for upload in uploads:
                    while not upload.add(await _next_chunk(upload.digest, requests, context)):
                        pass
                    held.finish(upload)
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _outcomes(
        self, queue: BatchingQueue[Item, Result], items: Sequence[Item], context: grpc.aio.ServicerContext
    ) -> list[Result | BaseException]:
        """Each item's result or exception, in order. Once the caller is gone, what still waits is dropped."""
        try:
            futures = queue.submit(items)
        except QueueFull as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        outcomes = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        self._metrics.items(queue.name, "ok", sum(not isinstance(o, BaseException) for o in outcomes))
        return outcomes

    def _error(self, queue: BatchingQueue[Any, Any], error: BaseException) -> Any:
        """The message for an item's error, which is counted."""
        if isinstance(error, ItemError):
            self._metrics.items(queue.name, "invalid")
            return reward_pb2.ItemError(code=reward_pb2.ItemError.INVALID_ARGUMENT, message=str(error))
        self._metrics.items(queue.name, "internal")
        message = f"{type(error).__name__}: {error}"
        return reward_pb2.ItemError(code=reward_pb2.ItemError.INTERNAL, message=message)

    async def _check_items(self, items: Sequence[Any], context: grpc.aio.ServicerContext) -> None:
        if not items:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no items")
        if len(items) > self._describe.max_items:
            message = f"the call has {len(items)} items, the limit is {self._describe.max_items}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)


async def _next(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
    """The next message of a stream; ends the call when there is none, or none for too long."""
    try:
        async with asyncio.timeout(UPLOAD_PAUSE_S):
            return await anext(requests)
    except StopAsyncIteration:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream ended before the call was complete")
    except TimeoutError:
        message = f"nothing came for {UPLOAD_PAUSE_S:g} s in the middle of the call"
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)


async def _next_chunk(
    digest: bytes, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext
) -> bytes:
    chunk = (await _next(requests, context)).chunk
    if chunk.sha256 != digest:
        message = f"a chunk of medium {digest.hex()} was due, not of {chunk.sha256.hex() or 'none'}"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
    return chunk.data


def _frames_bytes(frames: Any) -> int:
    """The size of a Frames message's pixels; raises ItemError when it is malformed."""
    count, height, width = frames.count, frames.height, frames.width
    if min(count, height, width) < 1:
        raise ItemError(f"frames of count {count}, height {height}, width {width}")
    if len(frames.sha256) != 32:
        raise ItemError(f"a SHA-256 has 32 bytes, not {len(frames.sha256)}")
    return count * height * width * 3


def _job(item: Any, held: MediaHold, *, video: bool) -> MaskJob | ItemError:
    """A SegmentItem for the back end, or what is wrong with it."""
    frames, box = item.frames, item.prompt.box
    try:
        size, data = _frames_bytes(frames), held.media[frames.sha256]
        if len(data) != size:
            what = f"{frames.count} frames of {frames.height}×{frames.width}"
            raise ItemError(f"{what} take {size} bytes, those of the hash are {len(data)}")
        if not item.prompt.HasField("box"):
            raise ItemError("the prompt has no box")
        prompt = MaskPrompt(
            box=(box.x1, box.y1, box.x2, box.y2),
            positive_points=tuple((point.x, point.y) for point in item.prompt.positive_points),
            negative_points=tuple((point.x, point.y) for point in item.prompt.negative_points),
        )
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(frames.count, frames.height, frames.width, 3)
        return MaskJob(pixels, prompt, item.key_frame, video, frames.sha256)
    except ItemError as error:
        return error
