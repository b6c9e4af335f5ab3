"""The process that compares mathematical expressions: lines of JSON in, lines of JSON out.

math-verify hands what a policy wrote to SymPy, which can run for ever or fill the memory (`9^{9^{9}}`).
Its own time limit is an alarm signal: it works on the main thread only, and cannot interrupt one long
big-integer operation at all. A process of its own can always be ended from outside, from any thread; it
also limits its own memory, and the kernel ends it if its parent is gone while it computes.
`equivalence.MathGrader` starts and stops it. Run as `python -m onethinker_jax.rewards.math_worker`.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any, TextIO

MEMORY_BYTES = 4 * 2**30
CPU_SECONDS_A_REQUEST = 10


def compare(truth: str, answer: str) -> dict[str, bool | str]:
    """{"equal": …} by math-verify, or {"error": …} when it raised."""
    from math_verify import parse, verify

    try:
        no_limit: Any = None
        parsed = [parse(text, parsing_timeout=no_limit) for text in (truth, answer)]
        return {"equal": bool(verify(parsed[0], parsed[1], timeout_seconds=no_limit))}
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,  # NotImplementedError and RecursionError among them
        TypeError,
        ValueError,
    ) as error:
        return {"error": type(error).__name__}


def _limit_cpu() -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime) + CPU_SECONDS_A_REQUEST
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answers one reply line for each request line `{"truth", "answer"}` until the input ends."""
    for line in requests:
        _limit_cpu()
        request = json.loads(line)
        replies.write(json.dumps(compare(request["truth"], request["answer"])) + "\n")
        replies.flush()


def main() -> None:
    """Limits memory, silences the libraries, loads math-verify, says so with one line, and serves."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    logging.disable(logging.CRITICAL)
    compare("$\\frac{1}{2}$", "$0.5$")
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    try:
        serve(sys.stdin, sys.stdout)
    except (KeyboardInterrupt, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
