"""Tests wait until something is so, never for some time; the only limit is one against hanging for ever."""

import subprocess
import time
from collections.abc import Callable

HANG_S = 900.0
"""What waits longer hangs. No test may come near it, however busy the machine: it is no condition of any."""


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen | None = None,
    *,
    what: Callable[[], object] = lambda: "the condition",
) -> None:
    """Returns once the condition is true; fails when `process`, which is to make it so, ends before."""
    end = time.monotonic() + HANG_S
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"{process.args} ended with {process.returncode}: {what()}")
        assert time.monotonic() < end, f"not within {HANG_S:g} s: {what()}"
        time.sleep(0.01)


def is_quick(call: Callable[[], object], seconds: float) -> bool:
    """Whether the call takes less of this thread's processor time, which others on the machine may lengthen."""
    for _ in range(5):
        start = time.thread_time()
        call()
        if time.thread_time() - start < seconds:
            return True
    return False
