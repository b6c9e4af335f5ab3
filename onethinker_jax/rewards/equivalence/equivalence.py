"""Whether a mathematical answer means the same as the truth, and the worker process behind it.

Numbers, sets, intervals and equal texts are settled in this process. What has to be computed goes to one worker
process (`math_worker`) with a limit on its processor time that holds on every thread and against every
expression; a comparison beyond it counts as not equal, and the next one gets a fresh worker. Answers are
remembered, since the samples of a group repeat them.
"""

from __future__ import annotations

import atexit
import functools
import re
import signal
import threading
from fractions import Fraction
from typing import Any

from onethinker_jax.rewards.equivalence import mathematics
from onethinker_jax.worker_process import WorkerProcess

MAX_MATH_CHARS = 20_000
"""math-verify looks for mathematics in texts up to this long; in a longer one there is none."""

ATTEMPTS = 3
"""Workers that may be killed over one comparison before it counts as not equal."""

MAX_EXPRESSION_CHARS = 1_000
"""A longer short answer is not compared as mathematics: it is not equal."""

_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?\Z", re.ASCII)


class MathGrader:
    """Mathematics in a worker process, one question at a time, each within `limit_s` of processor time.

    Safe to call from any thread. The worker starts at the first question (about a second, not counted in
    the limit) and ends with this process, or at `close`. `wall_limit_s` on the clock is the backstop for a
    worker that gets no processor time at all.
    """

    def __init__(self, *, limit_s: float = 2.0, wall_limit_s: float = 60.0) -> None:
        self.limit_s = limit_s
        self.wall_limit_s = wall_limit_s
        self.ended = 0
        """Questions without a verdict: out of time, or their workers killed again and again."""
        self._lock = threading.Lock()
        self._worker = WorkerProcess("onethinker_jax.rewards.equivalence.math_worker")

    def equal(self, truth: str, answer: str) -> bool | None:
        """Whether math-verify finds `answer` equal to `truth`; None when it raised.

        False when the comparison ran out of time. Raises RuntimeError when no worker can be started:
        math-verify is not installed.
        """
        return self._ask({"truth": truth, "answer": answer})

    def same_value(self, truth: str, answer: str, tolerance: Fraction = Fraction(0)) -> bool | None:
        """Whether two LaTeX expressions have one value; False when one cannot be read, None when out of time."""
        return self._ask(
            {"truth": truth, "answer": answer, "tolerance": str(tolerance)}, without_verdict=None
        )

    def vanishes(self, expression: str) -> bool:
        """Whether SymPy simplifies an expression to 0; False when it could not, or ran out of time."""
        return bool(self._ask({"expression": expression}))

    def close(self) -> None:
        """Ends the worker, if one runs; a later question starts another."""
        with self._lock:
            self._worker.stop()

    def _ask(self, question: dict[str, Any], without_verdict: bool | None = False) -> bool | None:
        """The worker's verdict; asked again if something else than its limits ended the worker."""
        with self._lock:
            for _ in range(ATTEMPTS):
                reply = self._worker.ask({**question, "seconds": self.limit_s}, self.wall_limit_s)
                if reply is not None:
                    return reply["verdict"]
                if self._worker.ended_by in (None, signal.SIGPROF):
                    break
            self.ended += 1
            return without_verdict


@functools.lru_cache(maxsize=1)
def shared_grader() -> MathGrader:
    """The process's one grader, made at first use and closed at exit."""
    grader = MathGrader()
    atexit.register(grader.close)
    return grader


def math_equal(answer: str, truth: str) -> bool | None:
    """math-verify's verdict on two texts as they stand, `shared_grader` deciding.

    None when math-verify raised. Two plain numbers are compared here as it does: rounded to six decimals, or
    exactly when one is whole. An empty or over-long text equals nothing.
    """
    answer, truth = answer.strip(), truth.strip()
    if not answer or not truth or len(answer) > MAX_MATH_CHARS or len(truth) > MAX_MATH_CHARS:
        return False
    if _PLAIN_NUMBER.match(answer) and _PLAIN_NUMBER.match(truth):
        given, wanted = float(answer), float(truth)
        return round(given, 6) == round(wanted, 6) if "." in answer and "." in truth else given == wanted
    return _remembered_verdict(answer, truth)


@functools.lru_cache(maxsize=16_384)
def _remembered_verdict(answer: str, truth: str) -> bool | None:
    return shared_grader().equal(truth, answer)


@functools.lru_cache(maxsize=16_384)
def _remembered_value(truth: str, answer: str, tolerance: Fraction) -> bool | None:
    return shared_grader().same_value(truth, answer, tolerance)


def math_equivalent(answer: str, truth: str) -> bool:
    """Whether two mathematical answers are the same: the paper variant's equivalence (`mathematics`)."""
    if len(answer) > MAX_EXPRESSION_CHARS or len(truth) > MAX_EXPRESSION_CHARS:
        return False
    return mathematics.equivalent(answer, truth, _remembered_value)


def plain_number(text: str) -> float | None:
    """A number as `float` reads it once its commas are dropped; None for anything else."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
