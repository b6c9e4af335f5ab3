"""Runs of the trainer in processes of their own, as a user starts them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onethinker_jax.train.log import read_metrics

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
