"""A child process that answers lines of JSON: both ends of the pipe.

What a policy wrote can keep a library busy for ever or cost the process its memory. A process of its own can
always be ended from outside, from any thread, and a dead one is replaced at the next question.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START_LIMIT_S = 300.0
END_LIMIT_S = 60.0  # of a process that has closed its pipe, until the kernel says what ended it


class WorkerProcess:
    """Runs `python -m module`, whose main calls `serve_lines`, and asks it questions.

    The process starts at the first question, in a session of its own so that Ctrl-C does not reach it, and
    ends when this process does, however that ends: SIGTERM it ignores. For one thread at a time.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.process: subprocess.Popen[bytes] | None = None
        self.ended_by: int | None = None
        """The signal that ended the process of the last question without an answer; None if it was stuck."""
        self._hung_up = False  # whether the process has closed its end of a pipe

    def ask(self, question: Any, limit_s: float) -> Any | None:
        """The answer, both any JSON; None when none came within `limit_s` seconds or the process died.

        After None the process is gone, and the next question starts another; starting is not counted in the
        limit. Raises RuntimeError when it ends by itself, or hangs, before it is ready.
        """
        if (self.process is None or self.process.poll() is not None) and not self._start():
            return None
        answer = self._exchange(json.dumps(question).encode() + b"\n", limit_s)
        if answer is None:
            self.ended_by = self._ended_by()
            self.stop()
        return answer

    def stop(self) -> None:
        """Ends the process, if one runs."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()

    def _start(self) -> bool:
        """Starts a process and waits until it is ready; False when something killed it meanwhile."""
        self.stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=package_environment(),
            start_new_session=True,
        )
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        if self._exchange(b"", START_LIMIT_S) is not None:
            return True
        self.ended_by = self._ended_by()
        self.stop()
        if self.ended_by is None:
            raise RuntimeError(f"the worker process {self.module} did not start: run it by hand to see why")
        return False

    def _ended_by(self) -> int | None:
        """The signal that ended the process; None if it runs, or ended by itself."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_LIMIT_S if self._hung_up else 1.0)
        status = self.process.poll()
        return -status if status is not None and status < 0 else None

    def _exchange(self, message: bytes, limit_s: float) -> Any | None:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        into, out = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._hung_up = False
        deadline = time.monotonic() + limit_s
        unsent, received = memoryview(message), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            if unsent:
                selector.register(into, selectors.EVENT_WRITE)
            while not received.endswith(b"\n"):
                left = deadline - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(left, 0.0))}
                if left <= 0 or not ready:
                    return None
                if into in ready:
                    try:
                        unsent = unsent[os.write(into, unsent[:65_536]) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        self._hung_up = True
                        return None
                    if not unsent:
                        selector.unregister(into)
                if out in ready:
                    piece = os.read(out, 1 << 20)
                    if not piece:
                        self._hung_up = True
                        return None
                    received += piece
        return json.loads(received)


def package_environment() -> dict[str, str]:
    """This process's environment, in which a child can import this very package."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def serve_lines(answer: Callable[[Any], Any]) -> None:
    """The child's side: says that it is ready, then answers one line for each line, until its input ends.

    What libraries print goes to standard error, so that it cannot end up between the answers.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a scheduler may send SIGTERM to all processes of a job
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)
        answers.write('{"ready": true}\n')
        answers.flush()
        for line in sys.stdin.buffer:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()
