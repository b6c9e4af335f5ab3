"""Runs of the trainer in processes of their own, as a user starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onethinker_jax.train.log.log import read_metrics
from tests.places import ROOT
from tests.waiting import HANG_S, wait_until

# As `python -m onethinker_jax.train`, and fails if anything of the trainer's process imported torch.
WITHOUT_TORCH = """
import sys
from onethinker_jax.train.__main__ import main
from tests.places import ROOT
status = main(sys.argv[1:])
found = {"torch", "transformers", "tensorflow"} & set(sys.modules)
sys.exit(f"the trainer imported {found}" if found else status)
"""


def environment() -> dict[str, str]:
    """This one's, without the tests' virtual devices."""
    flags = [
        flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag
    ]
    return {**os.environ, "XLA_FLAGS": " ".join(flags), "COLUMNS": "200"}


def module(name: str, *arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python -m name arguments`, or `code` with these arguments."""
    start = ["-m", name] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=environment(), check=False
    )


@contextmanager
def started(stage: str, until: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The trainer as a running process, which is ended with the block at the latest.

    After the first step of the stage it goes on only once there is a file `until`.
    """
    command = [sys.executable, "-m", *map(str, at_a_step(stage, until, *arguments))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=in_tests(), cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(directory: Path, stage: str, process: subprocess.Popen[str]) -> None:
    """Returns once a step of the stage is in the metrics."""
    wait_until(
        lambda: any(row["stage"] == stage for row in read_metrics(directory / "metrics.jsonl")),
        process,
        what=lambda: f"no step of {stage}",
    )


def at_a_step(stage: str, action: object, *arguments: object) -> list[object]:
    """What `python -m` runs: the trainer, which once there is a step of the stage gets a signal or holds."""
    return ["tests.train.at_a_step", stage, action, *arguments]


def interrupted(stage: str, *arguments: object, by: str = "SIGINT") -> subprocess.CompletedProcess[str]:
    """Runs the trainer to its end, with a signal of `at_a_step`, by default when the stage's first step is done."""
    command = [sys.executable, "-m", *map(str, at_a_step(stage, by, *arguments))]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=HANG_S, env=in_tests(), cwd=ROOT, check=False
    )


def in_tests() -> dict[str, str]:
    """The environment in which a process also finds the tests' modules."""
    return environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def hosts(
    *arguments: object, count: int = 2, at: tuple[int, str, object] | None = None
) -> list[list[object]]:
    """The commands of a run's processes, for `start_together`.

    `at`: a process, and the stage and the action of `at_a_step` for it.
    """
    where = f"127.0.0.1:{free_port()}"
    named = [*arguments, "--hosts.coordinator", where, "--hosts.count", count, "--hosts.index"]
    commands: list[list[object]] = []
    for index in range(count):
        plain: list[object] = ["onethinker_jax.train", *named, index]
        told = at is not None and at[0] == index
        commands.append(["-m", *(at_a_step(*at[1:], *named, index) if told and at else plain)])
    return commands


def start_together(
    commands: Sequence[Sequence[object]], *, devices: int | None = None
) -> list[subprocess.Popen[str]]:
    """Python with each of these arguments, on that number of virtual devices each."""
    changed = in_tests()
    if devices is not None:
        changed["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        changed["JAX_PLATFORMS"] = "cpu"
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=changed,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]


def ends_of(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status of each and what it said; all are killed when one hangs."""
    try:
        said = [process.communicate(timeout=HANG_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]
