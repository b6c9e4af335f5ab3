"""The thread that decodes: jobs come from the event loop, pieces of their answers go back to it.

JAX waits for the device, so it has a thread of its own. Between two decode blocks it takes what came meanwhile: new
jobs, and those whose clients have gone. An error of a dispatch fails the jobs under way, and the thread goes on.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import jax
from jax.sharding import Mesh

from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes
from onethinker_jax.model.generation.running_batch import NewTokens, RunningBatch, SampleRequest
from onethinker_jax.serve.answer_text import AnswerText
from onethinker_jax.serve.errors import Refused

logger = logging.getLogger("onethinker_jax.serve")

SICK_AFTER = 3
"""Errors of the device in a row, with no decode block between them, after which the server says that it is not well."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, its log-probability under the model, and those of the likeliest ones."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What one token adds to one of a job's answers."""

    sample: int
    text: str
    logprob: TokenLogprob | None = None  # None: not wanted, or the end token's
    finish_reason: str | None = None  # "stop" or "length" in the last piece of the answer


@dataclass
class Job:
    """A request for answers, and its pieces; None among these: the device failed, and nothing more comes."""

    request: SampleRequest[Example] | None  # None once it has joined the batch: its prompt may be large
    stops: Sequence[str] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    pieces: asyncio.Queue[list[Piece] | None] = field(default_factory=asyncio.Queue)
    texts: dict[int, AnswerText] = field(default_factory=dict)  # of the samples under way; the thread's
    open: int = 0  # answers that are not through; the thread's


class Engine:
    """Answers jobs by a running batch. `start` and `stop` it once; `submit` and `drop` on the event loop's thread."""

    def __init__(self, batch: RunningBatch[Example], tokens: TokenBytes, mesh: Mesh):
        self.batch = batch
        self._tokens, self._mesh = tokens, mesh
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self._numbers: dict[int, int] = {}  # id of a job -> its number in the batch
        self._stopped = False
        self._errors_in_a_row = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    @property
    def healthy(self) -> bool:
        """Whether answers can be expected."""
        return self._thread.is_alive() and self._errors_in_a_row < SICK_AFTER

    def warm_up(self) -> None:
        """Compiles every program; before `start`."""
        with jax.set_mesh(self._mesh):
            self.batch.warm_up()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to decode; pieces are handed out on this loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; jobs under way get nothing more."""
        self._inbox.put(self._stop)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Takes a job; its pieces come in its queue."""
        self._inbox.put(lambda: self._join(job))

    def drop(self, job: Job) -> None:
        """Frees what a job holds; nothing where it is through."""
        self._inbox.put(lambda: self._leave(job))

    async def answers(self, job: Job, count: int = 1) -> AsyncGenerator[list[Piece], None]:
        """The pieces of a job's `count` answers as they come; closed before they are through, the job is dropped.

        Raises Refused: the device failed.
        """
        under_way = count
        self.submit(job)
        try:
            while under_way:
                pieces = await job.pieces.get()
                if pieces is None:
                    raise Refused(500, "the device failed; the server's log says more")
                under_way -= sum(piece.finish_reason is not None for piece in pieces)
                yield pieces
        finally:
            if under_way:
                self.drop(job)

    def _run(self) -> None:
        with jax.set_mesh(self._mesh):
            while not self._stopped:
                busy = bool(self.batch.running or self.batch.waiting)
                try:
                    for order in self._orders(wait=not busy):
                        order()
                    if parts := self.batch.step():
                        self._errors_in_a_row = 0
                        self._hand_out([piece for part in parts if (piece := self._pieces(part)) is not None])
                except Exception:
                    logger.exception("a decode block failed; the requests under way are lost")
                    self._errors_in_a_row += 1
                    self._fail_all()

    def _orders(self, *, wait: bool) -> Iterator[Callable[[], None]]:
        """What came since; with `wait`, at least one order is waited for."""
        if wait:
            yield self._inbox.get()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()

    def _stop(self) -> None:
        self._stopped = True

    def _join(self, job: Job) -> None:
        assert job.request is not None
        try:
            number = self.batch.join(job.request)
        except ValueError:  # what was checked before does not hold: an error of ours
            logger.exception("a request cannot join the batch")
            self._hand_out([(job, None)])
            return
        job.open, job.request = job.request.samples, None
        self._jobs[number], self._numbers[id(job)] = job, number

    def _leave(self, job: Job) -> None:
        number = self._numbers.pop(id(job), None)
        if number is not None:
            del self._jobs[number]
            self.batch.leave(number)

    def _fail_all(self) -> None:
        jobs, self._jobs, self._numbers = list(self._jobs.values()), {}, {}
        self._hand_out([(job, None) for job in jobs])
        try:
            self.batch.clear()
        except Exception:
            logger.exception("no new KV cache can be made")

    def _pieces(self, part: NewTokens) -> tuple[Job, list[Piece]] | None:
        """What new tokens add to an answer, one piece a token; frees the slot of one whose stop string was found."""
        job = self._jobs.get(part.request)
        if job is None:
            return None
        text = job.texts.get(part.sample)
        if text is None:
            text = job.texts[part.sample] = AnswerText(self._tokens, job.stops)
        pieces: list[Piece] = []
        for index, token in enumerate(part.tokens.tolist()):
            said = text.add(token)
            reason = "stop" if text.stopped else None
            last = index + 1 == len(part.tokens)
            if last and part.reason is not None and reason is None:
                said += text.end()
                reason = "stop" if text.stopped else part.reason
            ends = last and part.reason == "stop" and not text.stopped
            logprob = self._logprob(job, part, index) if job.logprobs and not ends else None
            pieces.append(Piece(part.sample, said, logprob, reason))
            if reason is not None:
                self._end(job, part, early=part.reason is None)
                break
        return job, pieces

    def _end(self, job: Job, part: NewTokens, *, early: bool) -> None:
        """An answer is through; `early`: by a stop string, while its slot would go on."""
        if early:
            self.batch.leave(part.request, part.sample)
        del job.texts[part.sample]
        job.open -= 1
        if not job.open:
            del self._jobs[part.request], self._numbers[id(job)]

    def _logprob(self, job: Job, part: NewTokens, index: int) -> TokenLogprob:
        top: tuple[tuple[int, float], ...] = ()
        if part.top is not None:
            ids, values = (array[index, : job.top_logprobs].tolist() for array in part.top)
            top = tuple(zip(ids, values, strict=True))
        return TokenLogprob(int(part.tokens[index]), float(part.logprobs[index]), top)

    def _hand_out(self, given: list[tuple[Job, list[Piece] | None]]) -> None:
        def put() -> None:
            for job, pieces in given:
                job.pieces.put_nowait(pieces)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(put)
