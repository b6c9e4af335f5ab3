"""A reward server with back ends that do as they are told, and the means to run it in a process of its own.

`python tests/rewards/trial_server.py --text-backend trial --text-model LOG …` takes the server's flags. The
text back end scores an answer such as "7" with 7; before that it obeys a word in front: "until FILE 7" (waits for
the file), "hang 7", "raise 7", "nan 7". It appends the answers of every batch to the file LOG as a line of JSON.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from onethinker_jax.rewards.backends.table import TEXT_BACKENDS
from onethinker_jax.rewards.backends.types import BackendError, BackendSettings, TextItem
from onethinker_jax.rewards.server import __main__ as server
from tests.places import ROOT
from tests.waiting import HANG_S, wait_until


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
            case ["until", file, number]:
                wait_until(Path(file).exists)
            case ["hang", number]:
                threading.Event().wait()
            case ["raise", number]:
                raise RuntimeError(f"told to raise {number}")
            case ["nan", _]:
                number = "nan"
            case [number]:
                pass
        return float(number)


def item(answer: object) -> TextItem:
    return TextItem("", "", str(answer))


class Gate:
    """An item that keeps its batch, and so the one replica, until the gate is opened."""

    def __init__(self, folder: Path, number: int) -> None:
        self.file = folder / f"gate{number}"
        self.answer = f"until {self.file} {number}"
        self.item = item(self.answer)

    def open(self) -> None:
        self.file.touch()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()  # or whoever waits for a score would for ever, when a test fails


def batches(log: Path) -> list[list[str]]:
    """The answers of each batch so far; the last line may be in writing."""
    lines = log.read_text().splitlines(True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_batch(log: Path, answer: str) -> None:
    """Returns once a batch with that answer has begun."""
    wait_until(lambda: any(answer in batch for batch in batches(log)), what=lambda: f"{answer} never came")


class Process:
    """A server process: what it writes, and where it says that it listens."""

    def __init__(self, arguments: Sequence[str], output: Path, environment: dict[str, str] | None) -> None:
        self.output = output
        with output.open("ab") as file:
            command = [sys.executable, "-m", "tests.rewards.server.trial_server", *arguments]
            self.popen = subprocess.Popen(command, cwd=ROOT, stderr=file, env=environment)

    def said(self, pattern: str) -> str:
        """The last group of the pattern's last match in what the process wrote, once there is one."""
        wait_until(
            lambda: re.search(pattern, self.output.read_text()), self.popen, what=self.output.read_text
        )
        return re.findall(pattern, self.output.read_text())[-1]

    def end(self, *, kill: bool = False) -> int:
        """The exit status."""
        if kill:
            self.popen.kill()
        else:
            self.popen.terminate()
        return self.popen.wait(HANG_S)


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
    sys.exit(server.main(sys.argv[1:]))
