"""A reward server with back ends that do as they are told, and the means to run it in a process of its own.

`python tests/rewards/trial_server.py --text-backend trial --text-model LOG …` takes the server's flags. The
text back end scores an answer such as "7" with 7; before that it obeys a word in front: "sleep 0.5 7",
"hang 7", "raise 7", "nan 7". It appends the answers of every batch to the file LOG as a line of JSON.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onethinker_jax.rewards import server
from onethinker_jax.rewards.backends import TEXT_BACKENDS, BackendError, BackendSettings, TextItem

ROOT = Path(__file__).parents[2]


class Trial:
    def __init__(self, settings: BackendSettings) -> None:
        if settings.model is None:
            raise BackendError("it needs a file to write to")
        self.log = settings.model

    def score(self, items: Sequence[TextItem]) -> list[float]:
        with self.log.open("a") as file:
            file.write(json.dumps([item.answer for item in items]) + "\n")
        return [self._score(*item.answer.split()) for item in items]

    def _score(self, *words: str) -> float:
        match words:
            case ["sleep", seconds, number]:
                time.sleep(float(seconds))
            case ["hang", number]:
                threading.Event().wait()
            case ["raise", number]:
                raise RuntimeError(f"told to raise {number}")
            case ["nan", _]:
                number = "nan"
            case [number]:
                pass
        return float(number)


def batches(log: Path) -> list[list[str]]:
    """The answers of each batch so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_batch(log: Path, answer: str, timeout: float = 60.0) -> None:
    """Returns once a batch with that answer has begun."""
    deadline = time.monotonic() + timeout
    while not any(answer in batch for batch in batches(log)):
        assert time.monotonic() < deadline, f"{answer} never came"
        time.sleep(0.01)


class Process:
    """A server process: what it writes, and where it says that it listens."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: dict[str, str] | None) -> None:
        self.output = output
        with output.open("ab") as file:
            command = [sys.executable, "-m", "tests.rewards.trial_server", *arguments]
            self.popen = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)

    def said(self, pattern: str, timeout: float = 120.0) -> str:
        """The last group of the pattern's last match in what the process wrote, once there is one."""
        deadline = time.monotonic() + timeout
        while not (found := re.findall(pattern, self.output.read_text())):
            assert self.popen.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)
        return found[-1]

    def end(self, *, kill: bool = False) -> int:
        """The exit status."""
        if kill:
            self.popen.kill()
        else:
            self.popen.terminate()
        return self.popen.wait(120)


@contextlib.contextmanager
def trial_server(
    *arguments: str, output: Path, log: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Process]:
    """The server with these flags, serving; with the trial text back end where there is a `log`."""
    backend = [] if log is None else ["--text-backend", "trial", "--text-model", str(log)]
    process = Process([*arguments, *backend], output, environment)
    try:
        process.said(r"serving \w+ and \w+ on (\S+)")
        yield process
    finally:
        if process.popen.poll() is None:
            process.end()


TEXT_BACKENDS["trial"] = Trial

if __name__ == "__main__":
    sys.exit(server.main())
