"""Answers of a model behind an OpenAI-compatible URL: vLLM, SGLang, or anybody's.

Media are decoded, sampled and resized here as for a model on this machine, so that a protocol means the same for both,
and sent as data URLs. As many requests are under way as the flags allow; media of a few more questions are read ahead.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.processor.api_messages import (
    api_messages,
    frame_parts,
    picture_part,
    video_part,
    video_times,
)
from onethinker_jax.data_pipeline.processor.patches import QWEN3_VL
from onethinker_jax.data_pipeline.processor.processor_config import RELEASED
from onethinker_jax.data_pipeline.processor.prompts import Prompts, chat_messages
from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.endpoint.answer_cache import digest
from onethinker_jax.endpoint.endpoint import Endpoint, Reply, Unanswered, first_error
from onethinker_jax.endpoint.served_models import only_model
from onethinker_jax.endpoint.settings import EndpointSettings
from onethinker_jax.evaluate.answers.answerers import Answer, Question
from onethinker_jax.evaluate.answers.endpoint_flags import EndpointFlags
from onethinker_jax.evaluate.answers.failures import Failed, Tries
from onethinker_jax.model_arguments import ModelArguments

_TWICE = Tries()
_AHEAD = 2  # questions whose media are read before a request could be sent
_QUALITY = 95  # of JPEG


@dataclass(frozen=True)
class _Request:
    """What is sent for a question."""

    messages: list[dict[str, Any]]
    more: Mapping[str, Any]
    """Fields that the API does not have."""


class EndpointModel:
    """The `Answerer` of a model behind a URL."""

    def __init__(
        self,
        url: str,
        arguments: ModelArguments,
        flags: EndpointFlags,
        prompts: Prompts,
        tries: Tries = _TWICE,
        media: MediaReader | None = None,
    ):
        """Checks the flags, and asks for the model's name where none is given.

        Args:
            url: the address of the API.
            arguments: sampling and sizes of media.
            flags: how the endpoint is asked.
            prompts: the words.
            tries: how often a question's media are read, and whether an answer that fails ends the work.
            media: reads them; by default as `arguments` says.

        Raises UsageError: a flag that cannot work. EndpointError: nobody says which model is served.
        """
        self._tries = tries
        self._arguments, self._flags, self._prompts = arguments, flags, prompts
        sampling = arguments.answer_settings()
        try:
            self._limits = arguments.media_bounds().limits(RELEASED)
            self._endpoint = flags.endpoint(
                base_url=url,
                model=flags.model or only_model(url, flags),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
            )
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from None
        self.media = arguments.media() if media is None else media

    @property
    def together(self) -> int:
        """Each answer stands alone."""
        return 1

    @property
    def endpoint(self) -> EndpointSettings:
        """What is asked, with the model's name."""
        return self._endpoint

    @property
    def settings(self) -> Mapping[str, Any]:
        """As `Answerer`. The address and how fast it is asked are not among them."""
        own = ("top_k", "min_p", "stop", "seed", "video_total_pixels")
        named = {
            "endpoint.model": self._endpoint.model,
            "endpoint.extra_body": self._endpoint.extra_body,
            "endpoint.image_format": self._flags.image_format,
            "endpoint.video": self._flags.video,
            **vars(self._arguments.answer_settings()),
            **{name: getattr(self._arguments, name) for name in own},
            "prompt_file": digest(self._prompts.to_json()),
        }
        return {name.replace("_", "-"): value for name, value in named.items()}

    def answer(self, questions: Sequence[Question]) -> Generator[Sequence[Answer], None, None]:
        """As `Answerer`: an answer as soon as it is there.

        What fails by the network or the server is a failed `Answer` once another answer has come after it: where none
        does, the endpoint is gone, and what failed on its way is asked again by whoever goes on.

        Raises EndpointError: the endpoint cannot be used.
        """
        answers: queue.SimpleQueue[Sequence[Answer] | BaseException | None] = queue.SimpleQueue()
        work = _Work(self, questions, answers.put)
        thread = threading.Thread(target=work.run, name="endpoint", daemon=True)
        thread.start()
        try:
            while (found := answers.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            work.stop()
            thread.join()

    def read(self, record: Record) -> _Request | Failed:
        """`request`, tried again, or why it cannot be made. Raises RecordError where that ends the work."""
        return self._tries.of(record, lambda: self.request(record))

    def failed(self, record: Record, error: Unanswered) -> None:
        """Raises RecordError where a question without an answer ends the work."""
        if self._tries.end:
            raise RecordError(f"{record}: {error}")

    def request(self, record: Record) -> _Request:
        """The conversation about a record's question, its media read.

        Raises MediaError: a file cannot be decoded.
        """
        turns = chat_messages(record, prompts=self._prompts)
        while turns and turns[-1]["role"] == "assistant":
            turns.pop()
        images, videos = iter(record.images), iter(record.videos)
        factor, limits, flags = QWEN3_VL.factor, self._limits, self._flags
        as_one = flags.video == "video_url" and len(record.videos) == 1  # times are given of one video alone
        more = dict(self._extra)

        def image() -> list[dict[str, Any]]:
            pixels = self.media.image(next(images), limits.image_bounds(factor))
            return [picture_part(pixels, flags.image_format, quality=_QUALITY)]

        def video() -> list[dict[str, Any]]:
            read = self._video(next(videos))
            if not as_one:
                return frame_parts(read, quality=_QUALITY)
            given = more.get("media_io_kwargs", {})
            more["media_io_kwargs"] = {**given, "video": {**video_times(read), **given.get("video", {})}}
            return [video_part(read, quality=_QUALITY)]

        return _Request(api_messages(turns, image, video), more)

    def _video(self, path: Any) -> Video:
        limits = self._limits
        return self.media.video(
            path,
            limits.video_bounds(QWEN3_VL.factor),
            fps=limits.video_fps,
            max_frames=limits.video_max_frames,
            num_frames=limits.video_num_frames,
        )

    @cached_property
    def _extra(self) -> Mapping[str, Any]:
        """Fields of every request that the API does not have: vLLM and SGLang take them."""
        arguments = self._arguments
        more = {"top_k": arguments.top_k or None, "min_p": arguments.min_p or None}
        return {name: value for name, value in more.items() if value is not None} | self._endpoint.extra()

    def sampling(self, question: Question, sample: int) -> dict[str, Any]:
        """Fields of one sample's request: the stop strings, and its own seed where something is drawn."""
        fields: dict[str, Any] = {"stop": list(self._arguments.stop)} if self._arguments.stop else {}
        if self._endpoint.temperature > 0:
            state = np.random.SeedSequence([self._arguments.seed, question.number, sample])
            fields["seed"] = int(state.generate_state(1)[0]) & 0x7FFFFFFF
        return fields

    @property
    def threads(self) -> int:
        """How many questions' media are read at once."""
        return max(self._arguments.media_workers, 1)


class _Work:
    """Asks all questions in a thread of its own; `put` takes answers, the error that ended it, and None at the end."""

    def __init__(self, model: EndpointModel, questions: Sequence[Question], put: Any):
        self._model, self._questions, self._put = model, questions, put
        self._held: list[Answer] = []  # failed, and nothing came since
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._begin())
            self._put(None)
        except asyncio.CancelledError:
            self._put(None)
        except BaseException as error:  # noqa: BLE001  whoever waits for the answers raises it
            self._put(first_error(error))

    def stop(self) -> None:
        """Ends it early; may be called when it has ended."""
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._ask_all())
        if self._stopped:
            self._task.cancel()
        await self._task

    async def _ask_all(self) -> None:
        model = self._model
        capacity = asyncio.Semaphore(model.endpoint.concurrency + _AHEAD)
        threads = ThreadPoolExecutor(model.threads, thread_name_prefix="media")
        try:
            async with Endpoint(model.endpoint) as endpoint, asyncio.TaskGroup() as group:
                for question in self._questions:
                    await capacity.acquire()
                    task = group.create_task(self._ask(endpoint, threads, question))
                    task.add_done_callback(lambda _: capacity.release())
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        self._flush()

    async def _ask(self, endpoint: Endpoint, threads: ThreadPoolExecutor, question: Question) -> None:
        request = await self._loop.run_in_executor(threads, self._model.read, question.record)
        if isinstance(request, Failed):
            self._put([Answer(question.number, sample, failed=request.reason) for sample in question.samples])
            return
        async with asyncio.TaskGroup() as group:
            for sample in question.samples:
                group.create_task(self._sample(endpoint, question, sample, request))

    async def _sample(self, endpoint: Endpoint, question: Question, sample: int, request: _Request) -> None:
        number = question.number
        sampling = {**self._model.sampling(question, sample), "extra_body": dict(request.more)}
        try:
            reply = await endpoint.ask(request.messages, **sampling)
        except Unanswered as error:
            self._model.failed(question.record, error)
            self._held.append(Answer(number, sample, failed=str(error)))
            return
        self._flush()
        self._put([_answer(number, sample, reply)])

    def _flush(self) -> None:
        if self._held:
            self._put(self._held)
            self._held = []


def _answer(number: int, sample: int, reply: Reply) -> Answer:
    if reply.finish_reason == "content_filter":
        return Answer(number, sample, failed="the endpoint holds the answer back (content filter)")
    tokens = reply.completion_tokens or None
    return Answer(number, sample, reply.text, tokens=tokens, cut_off=reply.finish_reason == "length")
