"""A pool of processes that decode media; one that dies or hangs is replaced, and its file reported bad.

One that was killed from outside, as the kernel does where memory is short, says nothing of its file, which another
worker reads.

Each worker has one job at a time, so it is always known which file did it. Workers are fresh interpreters
and no forks: the trainer holds device threads, which a fork would copy in the middle of their work.
"""

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from onethinker_jax.data_pipeline.media.decoding import MediaError
from onethinker_jax.worker_process import package_environment

P = ParamSpec("P")
R = TypeVar("R")

# Decoders leak a little with every file; a worker is replaced after this many files.
JOBS_A_WORKER = 1000

ATTEMPTS = 3
"""Workers that may be killed over one file before it counts as bad."""


class MediaPool:
    """Runs functions in worker processes. Thread-safe; call it from as many threads as it has workers."""

    def __init__(
        self,
        workers: int,
        *,
        time_limit: float = 60.0,
        start_limit: float = 120.0,
        memory_bytes: int = 8 * 2**30,
    ):
        """Processes that are yet to start.

        Args:
            workers: how many processes; each starts with its first job.
            time_limit: seconds a job may take before its worker is ended.
            start_limit: seconds a worker may take to start.
            memory_bytes: address space of one worker.

        Raises ValueError: no workers, or no time.
        """
        if workers < 1 or time_limit <= 0:
            raise ValueError(f"workers {workers} and time_limit {time_limit} must be positive")
        self.time_limit = time_limit
        self.replaced = 0
        """Workers that died or had to be ended."""
        self._workers = [_Worker(start_limit, memory_bytes) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __len__(self) -> int:
        return len(self._workers)

    def call(self, function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
        """`function(*arguments, **keywords)` in a worker; waits for a free one.

        The function and all that goes in and out must be picklable; the first argument names the job in
        errors, as a path does.

        Raises MediaError, RecordError: raised by the function.
        Raises MediaError: it took too long, too much memory, or killed its worker.
        Raises DecoderError: another error of the function. RuntimeError: no worker can be started.
        """
        worker = self._idle.get()
        kind: str = ""
        value: Any = None
        try:
            for _ in range(ATTEMPTS):
                kind, value = self._run(worker, (function, arguments, keywords), arguments[0])
                if kind != "killed":
                    break
        except BaseException:  # an interrupt too: what the worker is doing now nobody will ask for
            worker.stop()
            raise
        finally:
            self._idle.put(worker)
        if kind in ("failed", "killed"):
            raise value
        return value

    def _run(self, worker: "_Worker", job: tuple, what: Any) -> tuple[str, Any]:
        """What the worker answered, or `killed` and the error that this is."""
        killed = "killed", MediaError(f"{what}: the process that decodes it died (SIGKILL)")
        try:
            connection = worker.started()
        except EOFError:
            self.replaced += 1
            return killed
        overdue = threading.Event()
        timer = threading.Timer(self.time_limit, worker.kill, [overdue])
        timer.daemon = True
        timer.start()
        try:
            connection.send(job)
            return connection.recv()
        except (EOFError, OSError):
            self.replaced += 1
            code = worker.stop()
            if overdue.is_set():
                raise MediaError(f"{what}: not decoded within {self.time_limit:g} s") from None
            if code == -signal.SIGKILL:
                return killed
            raise MediaError(f"{what}: the process that decodes it died ({_cause(code)})") from None
        finally:
            timer.cancel()
            timer.join()  # from here on it cannot end the worker of another job
            if overdue.is_set():
                worker.stop()

    def close(self) -> None:
        """Ends all workers; a later call starts them again."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> "MediaPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Worker:
    """One process, started when it is needed."""

    def __init__(self, start_limit: float, memory_bytes: int):
        self.start_limit, self.memory_bytes = start_limit, memory_bytes
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.jobs = 0

    def started(self) -> Connection:
        """The connection to the running process.

        Raises EOFError when something killed it while it started, RuntimeError when it does not start.
        """
        self.jobs += 1
        if self.connection is not None and self.jobs <= JOBS_A_WORKER:
            return self.connection
        self.stop()
        self.jobs = 1
        self.connection, theirs = Pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"{__package__}.media_worker",
                str(theirs.fileno()),
                str(self.memory_bytes),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=package_environment(),
            start_new_session=True,  # Ctrl-C is for the parent to handle
        )
        theirs.close()
        try:
            if self.connection.poll(self.start_limit) and self.connection.recv() == "ready":
                return self.connection
        except EOFError:
            code = self.stop()
            if code == -signal.SIGKILL:
                raise
            raise RuntimeError(f"a media worker did not start ({_cause(code)})") from None
        raise RuntimeError(f"a media worker did not start ({_cause(self.stop())})")

    def kill(self, overdue: threading.Event) -> None:
        """Ends the process because its time is over."""
        overdue.set()
        if self.process is not None:
            self.process.kill()

    def stop(self) -> int:
        """Ends the process, if there is one; its exit status."""
        process, connection = self.process, self.connection
        self.process = self.connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return 0
        process.kill()
        return process.wait()


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
