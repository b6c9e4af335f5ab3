"""Runs of the trainer in processes of their own, as a user starts them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onethinker_jax.train.log import read_metrics

ROOT = Path(__file__).parent.parent.parent

# As `python -m onethinker_jax.train`, and fails if anything of the trainer's process imported torch.
WITHOUT_TORCH = """
import sys
from onethinker_jax.train.__main__ import main
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


def module(
    name: str, *arguments: object, code: str | None = None, timeout: float = 400
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m name arguments`, or `code` with these arguments."""
    start = ["-m", name] if code is None else ["-c", code]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The trainer as a running process, which is ended with the block at the latest."""
    command = [sys.executable, "-m", "onethinker_jax.train", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(directory: Path, stage: str, process: subprocess.Popen[str]) -> None:
    """Returns once a step of the stage is in the metrics."""
    deadline = time.monotonic() + 300
    while not any(row["stage"] == stage for row in read_metrics(directory / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no step of {stage}"
        time.sleep(0.01)


def interrupted(directory: Path, stage: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the trainer, presses Ctrl-C once a step of the stage is in the metrics, and waits for its end."""
    with started(*arguments) as process:
        wait_for(directory, stage, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def hosts(*arguments: object, count: int = 2) -> list[list[object]]:
    """The commands of a run's processes, for ``start_together``."""
    where = f"127.0.0.1:{free_port()}"
    named = [*arguments, "--hosts.coordinator", where, "--hosts.count", count, "--hosts.index"]
    return [["-m", "onethinker_jax.train", *named, index] for index in range(count)]


def start_together(
    commands: Sequence[Sequence[object]], *, devices: int | None = None
) -> list[subprocess.Popen[str]]:
    """Python with each of these arguments, on so many virtual devices each."""
    changed = environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
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


def ends_of(processes: Sequence[subprocess.Popen[str]], *, timeout: float) -> list[tuple[int, str]]:
    """Exit status of each and what it said; all are killed when one takes too long."""
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]
