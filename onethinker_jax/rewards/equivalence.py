"""Whether an answer means the same as the truth: options, numbers, text and mathematics.

Plain numbers and equal strings are settled here at once. What is left of mathematics goes to one worker
process (`math_worker`) with a time limit that holds on every thread and against every expression; a
comparison that runs out of time counts as not equal, and the next one gets a fresh worker. Answers are
remembered, since the samples of a group repeat them.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

MAX_MATH_CHARS = 1_000
"""A longer expression is not compared: it is not equal."""

_PLAIN_NUMBER = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})\Z", re.ASCII)
_OPTION = re.compile(r"\s*(?:option\s+|answer\s*:?\s*)?[(\[]?\s*([a-z])\s*(?:[)\].:,]|\Z)", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|\Z))")
_MATH_MARK = re.compile(r"\$|\\\(|\\\[|\\boxed")
_WORDS = re.compile(r"\s*[^\W\d_]{2,}(\s+[^\W\d_]+)*\s*\Z")
_UNITS = re.compile(
    r"(degree|centimeter|cm|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(es)?s?"
)


class MathGrader:
    """Compares expressions in a worker process, one at a time, each within `time_limit_s` of wall time.

    Safe to call from any thread. The worker starts at the first comparison (about a second, not counted
    in the limit) and ends with this process, or at `close`.
    """

    def __init__(self, *, time_limit_s: float = 2.0, start_limit_s: float = 60.0) -> None:
        self.time_limit_s = time_limit_s
        self.start_limit_s = start_limit_s
        self.timeouts = 0
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    def equal(self, truth: str, answer: str) -> bool | None:
        """Whether math-verify finds `answer` equal to `truth`; None when it raised or was not installed.

        False when the comparison ran out of time or its worker died of it (memory). Raises RuntimeError
        when no worker can be started.
        """
        request = json.dumps({"truth": truth, "answer": answer}).encode() + b"\n"
        with self._lock:
            worker = self._running_worker()
            reply = self._exchange(worker, request, self.time_limit_s)
            if reply is None:
                self.timeouts += 1
                self._stop()
                return False
        if "error" in reply:
            return None
        return bool(reply["equal"])

    def close(self) -> None:
        """Ends the worker, if one runs; a later comparison starts another."""
        with self._lock:
            self._stop()

    def _running_worker(self) -> subprocess.Popen[bytes]:
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self._stop()
        environment = dict(os.environ)
        package_root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            path for path in (package_root, environment.get("PYTHONPATH")) if path
        )
        self._worker = subprocess.Popen(
            [sys.executable, "-m", "onethinker_jax.rewards.math_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        if self._exchange(self._worker, b"", self.start_limit_s) is None:
            self._stop()
            raise RuntimeError("the worker that compares mathematics did not start: is math-verify there?")
        return self._worker

    @staticmethod
    def _exchange(worker: subprocess.Popen[bytes], request: bytes, limit_s: float) -> dict | None:
        """Sends a line, reads a line; None when the worker died or the limit passed."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            if request:
                worker.stdin.write(request)
                worker.stdin.flush()
        except OSError:
            return None
        deadline = time.monotonic() + limit_s
        received = b""
        handle = worker.stdout.fileno()
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([handle], [], [], left)[0]:
                return None
            piece = os.read(handle, 65_536)
            if not piece:
                return None
            received += piece
        return json.loads(received)

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()


@functools.lru_cache(maxsize=1)
def shared_grader() -> MathGrader:
    """The process's one grader, made at first use and closed at exit."""
    grader = MathGrader()
    atexit.register(grader.close)
    return grader


def math_equal(answer: str, truth: str) -> bool | None:
    """math-verify's verdict on two texts as they stand, `shared_grader` deciding.

    None when math-verify raised. Two plain numbers are compared here: equal when they agree to six
    decimals, math-verify's own tolerance, or exactly when one is whole. An empty or over-long text equals
    nothing.
    """
    answer, truth = answer.strip(), truth.strip()
    if not answer or not truth or len(answer) > MAX_MATH_CHARS or len(truth) > MAX_MATH_CHARS:
        return False
    if _PLAIN_NUMBER.match(answer) and _PLAIN_NUMBER.match(truth):
        difference = float(answer) - float(truth)
        return (round(difference, 6) if "." in answer and "." in truth else difference) == 0.0
    return _remembered_verdict(answer, truth)


@functools.lru_cache(maxsize=16_384)
def _remembered_verdict(answer: str, truth: str) -> bool | None:
    return shared_grader().equal(truth, answer)


def math_equivalent(answer: str, truth: str) -> bool:
    """Whether two mathematical answers are the same: the paper variant's equivalence.

    Equal text first; else math-verify with both read as LaTeX. The released code leaves a bare `x^2+1`
    unmarked, which math-verify then cannot see at all; here it is put between dollar signs.
    """
    if len(answer) > MAX_MATH_CHARS or len(truth) > MAX_MATH_CHARS:
        return False
    if plain_text(answer) == plain_text(truth):
        return bool(plain_text(truth))
    if _WORDS.match(answer) or _WORDS.match(truth):
        return False
    return bool(math_equal(_marked(answer), _marked(truth)))


def _marked(text: str) -> str:
    text = text.strip()
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
    if len(text) > 400:
        return None
    try:
        return float(text.replace(",", "").strip())
    except ValueError:
        return None


def grade_answer(answer: str, truth: str) -> bool:
    """Equality as mathruler's `grade_answer` decides it, for the released variant.

    Both texts are normalised (LaTeX text and dollar marks, per cent, units, commas in numbers, case, white
    space) and compared; then, element by element of a bracketed tuple, fractions must be written alike,
    whole numbers only equal whole numbers, and the rest may be equal by mathematics.
    """
    if len(answer) > MAX_MATH_CHARS or len(truth) > MAX_MATH_CHARS:
        return False
    given, wanted = _graded_form(answer), _graded_form(truth)
    if given == wanted:
        return True
    if not given or not wanted:
        return False
    given_parts, wanted_parts = _tuple_parts(given), _tuple_parts(wanted)
    if len(given_parts) != len(wanted_parts):
        return False
    if len(wanted_parts) > 1 and (given[0] != wanted[0] or given[-1] != wanted[-1]):
        return False
    return all(_part_equal(a, b) for a, b in zip(given_parts, wanted_parts, strict=True))


def _graded_form(text: str) -> str:
    whole = re.fullmatch(r"\\text\{(.+?)\}", text.strip())
    text = whole.group(1) if whole else text.strip()
    text = text.replace("\\%", "").replace("%", "").replace("\\$", "").replace("$", "")
    text = text.replace(" or ", " , ").replace(" and ", " , ")
    text = _UNITS.sub("", text)
    text = re.sub(r"\^ ?\{?\\circ\}?", "", text)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\!", "")
    text = re.sub(r"\\frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))", r"\1\3/\2\4", text)
    text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text).replace("\\pi", "pi")
    text = re.sub(r"(\d) +(\d)", r"\1+\2", re.sub(r"^\s*[a-z]{1,2}\s*=", "", text))
    text = _THOUSANDS.sub("", "".join(text.split()).lower().replace("{", "").replace("}", ""))
    number = plain_number(text) if "," not in text else None
    if number is not None and abs(number) < 1e15 and abs(number - round(number)) <= 1e-7:
        return str(round(number))
    return text


def _tuple_parts(text: str) -> list[str]:
    inside = text[1:-1]
    if len(text) > 2 and text[0] in "()[]" and text[-1] in "()[]" and not re.search(r"[()\[\]]", inside):
        return inside.split(",")
    return [text]


def _part_equal(given: str, wanted: str) -> bool:
    given, wanted = _without_brackets(given), _without_brackets(wanted)
    if given == wanted:
        return True
    fraction = re.compile(r"-?\d+/\d+\Z")
    if fraction.match(given) and fraction.match(wanted):
        return False
    whole = re.compile(r"-?\d+\Z")
    if bool(whole.match(given)) != bool(whole.match(wanted)):
        return False
    if not re.search(r"\d", given + wanted):
        return False  # two different words or option letters
    letters = {character for character in (given + wanted).replace("sqrt", "") if character.isalpha()}
    if len(letters) > 2 or re.search(r"\^[({]|\^\d+\^|\^\d\d+", given + wanted):
        return False
    marked = [re.sub(r"sqrt\(([^()]*)\)", r"\\sqrt{\1}", part) for part in (given, wanted)]
    return bool(math_equal(f"${marked[0]}$", f"${marked[1]}$"))


def _without_brackets(text: str) -> str:
    while len(text) > 2 and text[0] == "(" and text[-1] == ")" and not re.search(r"\).*\(", text):
        text = text[1:-1]
    return text
