"""Whether an answer means the same as the truth: options, numbers, text and mathematics.

Plain numbers and equal strings are settled here at once. What is left of mathematics goes to one worker
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
from typing import Any

from onethinker_jax.rewards.worker_process import WorkerProcess

MAX_MATH_CHARS = 20_000
"""math-verify looks for mathematics in texts up to this long; in a longer one there is none."""

ATTEMPTS = 3
"""Workers that may be killed over one comparison before it counts as not equal."""

MAX_EXPRESSION_CHARS = 1_000
"""A longer short answer is not compared as mathematics: it is not equal."""

_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?\Z", re.ASCII)
_SIGNED_NUMBER = re.compile(r"[+-]?(\d{1,15}\.?\d{0,15}|\.\d{1,15})\Z", re.ASCII)
_OPTION = re.compile(r"\s*(?:option\s+|answer\s*:?\s*)?[(\[]?\s*([a-z])\s*(?:[)\].:,]|\Z)", re.IGNORECASE)
_MATH_MARK = re.compile(r"\$|\\\(|\\\[|\\boxed")
_WORDS = re.compile(r"\s*[^\W\d_]{2,}(\s+[^\W\d_]+)*\s*\Z")


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
        self._worker = WorkerProcess("onethinker_jax.rewards.math_worker")

    def equal(self, truth: str, answer: str) -> bool | None:
        """Whether math-verify finds `answer` equal to `truth`; None when it raised.

        False when the comparison ran out of time. Raises RuntimeError when no worker can be started:
        math-verify is not installed.
        """
        return self._ask({"truth": truth, "answer": answer})

    def vanishes(self, expression: str) -> bool:
        """Whether SymPy simplifies an expression to 0; False when it could not, or ran out of time."""
        return bool(self._ask({"expression": expression}))

    def close(self) -> None:
        """Ends the worker, if one runs; a later question starts another."""
        with self._lock:
            self._worker.stop()

    def _ask(self, question: dict[str, Any]) -> bool | None:
        """The worker's verdict; asked again if something else than its limits ended the worker."""
        with self._lock:
            for _ in range(ATTEMPTS):
                reply = self._worker.ask({**question, "seconds": self.limit_s}, self.wall_limit_s)
                if reply is not None:
                    return reply["verdict"]
                if self._worker.ended_by in (None, signal.SIGPROF):
                    break
            self.ended += 1
            return False


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


def math_equivalent(answer: str, truth: str) -> bool:
    """Whether two mathematical answers are the same: the paper variant's equivalence.

    Equal text first, then numbers to six decimals; else math-verify with both read as LaTeX. The released
    code leaves a bare `x^2+1` unmarked, which math-verify then cannot see at all; here it is put between
    dollar signs.
    """
    answer, truth = answer.strip(), truth.strip()
    if len(answer) > MAX_EXPRESSION_CHARS or len(truth) > MAX_EXPRESSION_CHARS:
        return False
    if plain_text(answer) == plain_text(truth):
        return bool(plain_text(truth))
    if _SIGNED_NUMBER.match(answer) and _SIGNED_NUMBER.match(truth):
        return round(float(answer), 6) == round(float(truth), 6)
    if _WORDS.match(answer) or _WORDS.match(truth):
        return False
    return bool(math_equal(_marked(answer), _marked(truth)))


def _marked(text: str) -> str:
    return text if _MATH_MARK.search(text) or _PLAIN_NUMBER.match(text) else f"${text}$"


def option_letter(text: str) -> str | None:
    """The option a multiple-choice answer names, upper case: "A", "(a)", "A.", "A) a dog"; else None."""
    found = _OPTION.match(text[:200])
    return found.group(1).upper() if found else None


def options_equivalent(answer: str, truth: str) -> bool:
    """Whether two answers name the same option; by their text when the truth names none."""
    letter = option_letter(truth)
    if letter is None:
        return bool(plain_text(truth)) and plain_text(answer) == plain_text(truth)
    return option_letter(answer) == letter


def plain_text(text: str) -> str:
    """Lower case, white space collapsed, without a closing full stop or surrounding dollar signs."""
    return " ".join(text.lower().split()).strip("$ ").removesuffix(".").rstrip()


def plain_number(text: str) -> float | None:
    """A number as `float` reads it once its commas are dropped; None for anything else."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
