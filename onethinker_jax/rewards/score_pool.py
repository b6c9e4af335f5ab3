"""Scores many responses at once in worker processes; a worker that dies is replaced and its part scored again.

`score_response` is pure, so a part that is scored twice gives the same numbers, and each part's scores are
taken once: whatever dies, nothing is lost or doubled.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onethinker_jax.errors import UserError
from onethinker_jax.rewards.answers import MAX_RESPONSE_CHARS
from onethinker_jax.rewards.own_reward import RewardFunctionError, load_reward, own_score
from onethinker_jax.rewards.score import GroundTruthError, RewardSettings, Score, score_response
from onethinker_jax.worker_process import WorkerProcess

log = logging.getLogger(__name__)

CHUNK = 16
"""Requests handed to a worker at once: neighbours, so that a group's repeated answers meet one memory."""

ATTEMPTS = 3
"""Workers that may die over one chunk before it is given up."""

REQUEST_LIMIT_S = 90.0
"""For one request on the clock, above what a comparison of mathematics may take: only a stuck worker gets there."""


_WORKER = "onethinker_jax.rewards.score_worker"


class ScoringError(UserError):
    """A part of a batch could not be scored: its worker processes died, one after the other."""


@dataclass(frozen=True)
class ScoreRequest:
    """A response and what it is scored against; `question` is what an open-ended judge is shown."""

    response: str
    ground_truth: str
    question: str
    problem_type: str
    data_type: str
    group: int = 0
    """Which prompt of the batch it answers: scores normalised by group are within it."""
    options: Sequence[str] = ()
    """The options of a multiple-choice question, with or without their letters."""
    record: Mapping[str, Any] | None = None
    """What a reward of one's own is given, see `own_reward`; JSON."""


@dataclass(frozen=True)
class Judged:
    """A request's scores from the reward service, None where it gave none."""

    text_score: float | None = None
    mask_score: float | None = None


UNJUDGED = Judged()


def score_request(request: ScoreRequest, judged: Judged, settings: RewardSettings) -> Score:
    """`score_response` of one request, or what `settings.module` gives it, in this process."""
    if settings.module is not None:
        assert request.record is not None
        return own_score(settings.module, request.record, request.response)
    return score_response(
        request.response,
        request.ground_truth,
        problem_type=request.problem_type,
        data_type=request.data_type,
        variant=settings.variant,
        text_score=judged.text_score,
        mask_score=judged.mask_score,
        settings=settings,
        options=request.options,
    )


class ScorePool:
    """`workers` processes that score requests. Safe to call from several threads; use as a context manager.

    The workers start at the first batch (about a second each), import no JAX, and end with this process.
    """

    def __init__(self, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.replaced = 0
        """Workers that died, or got stuck, and were replaced."""
        self._workers = [WorkerProcess(_WORKER) for _ in range(workers)]
        self._idle: queue.Queue[WorkerProcess] = queue.Queue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="score")

    def __enter__(self) -> ScorePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for batches under way, then ends the workers."""
        self._threads.shutdown()
        for worker in self._workers:
            worker.stop()

    def process_ids(self) -> list[int]:
        """The workers that run now."""
        return [process.pid for worker in self._workers if (process := worker.process) is not None]

    def score(
        self,
        requests: Sequence[ScoreRequest],
        *,
        settings: RewardSettings,
        judged: Mapping[int, Judged] | None = None,
    ) -> list[Score]:
        """One Score a request, in order: the same numbers as `score_response` in this process.

        `judged` maps a request's number to what the reward service said of it. Raises what `score_response`
        raises, and ScoringError when a part's workers died `ATTEMPTS` times.
        """
        judged = judged or {}
        rows = [(request, judged.get(number, UNJUDGED)) for number, request in enumerate(requests)]
        chunks = [
            _chunk(rows[start : start + CHUNK], start, settings) for start in range(0, len(rows), CHUNK)
        ]
        return [score for scores in self._threads.map(self._score_chunk, chunks) for score in scores]

    def _score_chunk(self, chunk: dict[str, Any]) -> list[Score]:
        count, worker = len(chunk["rows"]), self._idle.get()
        try:
            for _ in range(ATTEMPTS):
                reply = worker.ask(chunk, REQUEST_LIMIT_S * count)
                if reply is not None:
                    return _scores(reply, count)
                self.replaced += 1
                log.warning(
                    "a scoring worker died; requests from number %d on are scored again", chunk["start"]
                )
        finally:
            self._idle.put(worker)
        raise ScoringError(
            f"{ATTEMPTS} workers in a row died scoring requests {chunk['start']} to {chunk['start'] + count - 1}"
        )


@contextmanager
def score_pool(workers: int) -> Iterator[ScorePool | None]:
    """A pool of `workers` processes for the block; for 0 None, which scores in this process."""
    if not workers:
        yield None
        return
    with ScorePool(workers) as pool:
        yield pool


def try_reward(settings: RewardSettings, requests: Sequence[ScoreRequest] = ()) -> None:
    """Loads a reward of one's own in a process of its own, so that what it imports stays out of this one, and scores.

    Raises RewardFunctionError, and ScoringError when it ends its process or takes too long.
    """
    worker = WorkerProcess(_WORKER)
    try:
        rows = [(request, UNJUDGED) for request in requests]
        reply = worker.ask(_chunk(rows, 0, settings), REQUEST_LIMIT_S * max(len(rows), 1))
    finally:
        worker.stop()
    if reply is None:
        raise ScoringError(f"reward.module {settings.module}: ended its process, or took too long")
    _scores(reply, len(rows))


def score_rows(chunk: dict[str, Any]) -> dict[str, Any]:
    """A worker's part: the scores of a chunk's rows, or the error of the first that has one."""
    settings = RewardSettings(**chunk["settings"])
    try:
        if settings.module is not None:
            load_reward(settings.module)  # also for no rows: whoever tries it hears what is wrong
        scores = [
            dataclasses.astuple(score_request(ScoreRequest(*request), Judged(*judged), settings))
            for request, judged in chunk["rows"]
        ]
    except ValueError as error:
        return {"error": str(error), "kind": type(error).__name__}
    return {"scores": scores}


def _chunk(
    rows: Sequence[tuple[ScoreRequest, Judged]], start: int, settings: RewardSettings
) -> dict[str, Any]:
    """Rows as a worker is sent them; the first is request number `start`."""
    pairs = [_row(*pair) for pair in rows]
    return {"settings": dataclasses.asdict(settings), "start": start, "rows": pairs}


def _row(request: ScoreRequest, judged: Judged) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A request as JSON; of a response too long for the formulas, only so much that it stays too long."""
    response = request.response if request.record else request.response[: MAX_RESPONSE_CHARS + 1]
    request = dataclasses.replace(request, response=response, question="")
    return dataclasses.astuple(request), dataclasses.astuple(judged)


_RAISED: dict[str, type[ValueError]] = {
    error.__name__: error for error in (GroundTruthError, RewardFunctionError)
}


def _scores(reply: dict[str, Any], count: int) -> list[Score]:
    if "error" in reply:
        raise _RAISED.get(reply["kind"], ValueError)(reply["error"])
    scores = [Score(*parts) for parts in reply["scores"]]
    if len(scores) != count:
        raise ScoringError(f"a scoring worker gave {len(scores)} scores for {count} requests")
    return scores
