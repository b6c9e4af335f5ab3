"""Trials side by side: each in a process of its own on its share of the cores, their ends told as they come."""

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from onethinker_jax.command_line import INTERRUPTED
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.run import TrainConfig

Work = Callable[[TrainConfig, Sequence[int], Path], None]
"""What the process does: of settings, cores, and the file that it says everything into."""


@dataclass(frozen=True)
class Job:
    """Work to be done in a process of its own."""

    name: str
    work: Work
    config: TrainConfig
    log: Path
    prepare: Callable[[TrainConfig], None] = lambda config: None
    """Called before its process begins."""


@dataclass(frozen=True)
class Ended:
    """A job whose process has ended, and how."""

    job: Job
    status: int
    seconds: float

    @property
    def reason(self) -> str:
        """Why it failed, as its log says last."""
        lines = self.job.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
        return said.removeprefix("error: ") if said else f"exit status {self.status}; see {self.job.log}"


def core_shares(workers: int) -> list[list[int]]:
    """The cores that this process may use, dealt out; raises SettingError when a worker would have none."""
    cores = sorted(os.sched_getaffinity(0))
    if not 0 < workers <= len(cores):
        raise SettingError(f"--workers {workers}: 1 to {len(cores)}, as there are that many cores")
    return [cores[number::workers] for number in range(workers)]


def run_jobs(jobs: Sequence[Job], shares: Sequence[Sequence[int]]) -> Generator[Ended, None, None]:
    """Runs the jobs, a worker a share of the cores, in their order as workers get free.

    After Ctrl-C, or when the caller stops asking, every run under way is told to stop, and saves its step.
    """
    waiting, free = deque(jobs), deque(shares)
    running: dict[SpawnProcess, tuple[Job, Sequence[int], float]] = {}
    context = multiprocessing.get_context("spawn")
    try:
        while waiting or running:
            while waiting and free:
                job, cores = waiting.popleft(), free.popleft()
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.prepare(job.config)
                process = context.Process(target=job.work, args=(job.config, cores, job.log))
                process.start()
                running[process] = job, cores, time.monotonic()
            ended = wait([process.sentinel for process in running])
            for process in [process for process in running if process.sentinel in ended]:
                job, cores, began = running.pop(process)
                process.join()
                free.append(cores)
                status = process.exitcode
                assert status is not None
                if status == INTERRUPTED:
                    raise KeyboardInterrupt(f"{job.name} was stopped; the same command goes on from there")
                yield Ended(job, status, time.monotonic() - began)
    finally:
        _stop(running)


def _stop(running: Mapping[SpawnProcess, object]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        process.join()
