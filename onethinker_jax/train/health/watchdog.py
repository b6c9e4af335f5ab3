"""The watchdog: a step that does not end is seen, and ends the run instead of holding its machines for ever.

So are answers to the held-out records that do not come, and an export that does not end.

Durations are of a monotonic clock: a wall clock that is set while the run goes on moves nothing here.
"""

import faulthandler
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from onethinker_jax.text_output import one_line
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.log.progress import Clock

STALLED = 124
"""Exit status of a run whose step did not end, as of timeout(1)."""
REMEMBERED = 20
"""The newest steps whose longest is the usual one."""
KNOWN_AFTER = 2
"""Steps of a start that are not usual: they compile."""
NEVER = math.inf
"""The same of work that may compile all the while, or has no steps."""
STEP = "the step after {} has not ended"
OTHERS_S = 10.0
"""How long the first of several processes that sees the stall waits for the others to write their stacks too."""
INTERPRETER_S = 60.0
"""After the limit: when a thread has held the interpreter all the while, and this file's own could not run."""
_POLL_S = 1.0
_FLUSH_S = 5.0


class Watchdog:
    """Ends the process when there is no `beat` for too long; a context manager, which watches within its block.

    It writes the stacks of all threads to `stacks`, one line to standard error, and exits with status `STALLED`. A
    thread that never gives the interpreter back, as in a regular expression that does not end, lets nobody write that
    line: then the stacks are written by C's own thread, and the status is 1.
    """

    def __init__(
        self,
        settings: HealthSettings,
        stacks: Path,
        *,
        stage: str,
        stalled: str = STEP,
        known_after: float = KNOWN_AFTER,
        processes: int = 1,
        clock: Clock = time.monotonic,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """`stalled` is what to say of a `stage` that makes no step, with the number of the newest one.

        The steps after the first `known_after` are the usual ones.
        """
        self._settings, self._stacks, self._stage, self._processes = settings, stacks, stage, processes
        self._stalled, self._known_after, self._owns_stacks = stalled, known_after, False
        self._clock, self._end = clock, end
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._step, self._beats, self._since = 0, 0, clock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._file: TextIO | None = None

    def beat(self, step: int) -> None:
        """Notes that `step` is done: the next one begins."""
        now = self._clock()
        self._beats += 1
        if self._beats > self._known_after:
            self._durations.append(now - self._since)
        self._step, self._since = step, now
        self._arm()

    @property
    def limit(self) -> float:
        """Seconds that the step under way may take."""
        if not self._durations:
            return self._settings.first_step_timeout_seconds
        usual = max(self._durations)
        return max(self._settings.step_timeout_factor * usual, self._settings.step_timeout_seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block nothing is watched; it does not count in the step."""
        since, began = self._since, self._clock()
        self._since = math.inf
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            self._since = self._clock() - (began - since)
            self._arm()

    def look(self) -> bool:
        """Ends the process if the step has taken too long; whether it did."""
        took, limit = self._clock() - self._since, self.limit
        if took <= limit:
            return False
        written = self._write_stacks(took)
        _flush()
        os.write(2, f"error: {one_line(self._line(took, written))}\n".encode())
        if self._processes > 1:
            time.sleep(OTHERS_S)
        self._end(STALLED)
        return True

    def __enter__(self) -> "Watchdog":
        if self._settings.step_timeout_factor:
            self._since = self._clock()
            self._stacks.parent.mkdir(parents=True, exist_ok=True)
            self._owns_stacks = (
                not self._stacks.exists()
            )  # else another one, which is paused, may write there
            self._file = self._stacks.open("a", encoding="utf-8")
            self._arm()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        faulthandler.cancel_dump_traceback_later()
        self._stopped.set()
        self._thread.join()
        self._file.close()
        if self._owns_stacks and not self._stacks.stat().st_size:
            self._stacks.unlink()

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_S):
            if self.look():
                return

    def _arm(self) -> None:
        """Sets C's own watch anew."""
        if self._file is not None:
            faulthandler.dump_traceback_later(self.limit + INTERPRETER_S, exit=True, file=self._file)

    def _write_stacks(self, took: float) -> bool:
        """Whether the stacks are in the file; else they are on standard error."""
        assert self._file is not None
        faulthandler.cancel_dump_traceback_later()
        try:
            self._file.write(f"{self._stage}, after step {self._step}: no end for {took:.0f} s\n")
            self._file.flush()
            faulthandler.dump_traceback(self._file)
        except OSError:  # a full disk, say: no reason not to end
            faulthandler.dump_traceback(sys.__stderr__ or 2)
            return False
        return True

    def _line(self, took: float, written: bool) -> str:
        usual = f"the longest of the last {len(self._durations)} took {max(self._durations, default=0):.3g} s"
        if not self._durations:
            usual = "health.first_step_timeout_seconds"
        where = f"the stacks of all threads are in {self._stacks}" if written else "the stacks are above"
        return (
            f"{self._stage}: {self._stalled.format(self._step)} for {took:.0f} s ({usual}): {where}; the same command "
            "goes on from the newest checkpoint"
        )


def _flush() -> None:
    """Gives on what was printed, which an exit without Python's own end loses; waits for no reader that is stuck."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()

    thread = threading.Thread(target=flush, name="flush", daemon=True)
    thread.start()
    thread.join(_FLUSH_S)
