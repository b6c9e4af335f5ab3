"""A process killed anywhere and started again hands out what an uninterrupted one does, to the byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data_pipeline.batches.stream_process import Streams
from tests.data_pipeline.making import sft_row, write_image, write_rows, write_video
from tests.places import ROOT
from tests.waiting import wait_until

COUNT = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(3):
        write_image(folder / f"{number}.png", 64, 64 + 32 * number, seed=number)
    write_video(folder / "film.mp4", [i / 8 for i in range(16)])
    rows = []
    for number in range(31):
        row = sft_row(
            "What is it? " * (1 + number % 4),
            "A star. " * (1 + number % 3),
            problem_id=number,
            data_source="ab"[number % 2],
        )
        row["images"] = [f"{number % 3}.png"]
        if number % 5 == 0:
            row["messages"][0]["content"] = "<video>What happens?"
            del row["images"]
            row["videos"] = ["film.mp4"]
        rows.append(row)
    return write_rows(folder / "sft.json", rows)


class Child:
    """A `stream_process` of one host, to be started and killed."""

    def __init__(self, folder: Path, **settings):
        folder.mkdir(parents=True)
        self.log, self.file = folder / "log", folder / "settings.json"
        named = {"log": str(self.log), "state": str(folder / "state.json"), "count": COUNT, "save_every": 3}
        self.file.write_text(json.dumps({**settings, **named}))
        self.process: subprocess.Popen | None = None

    def start(self, at_most: int | None = None) -> None:
        """Goes on; after `at_most` lines it waits to be killed, and never comes to its end before."""
        settings = json.loads(self.file.read_text())
        self.file.write_text(json.dumps({**settings, "at_most": at_most}))
        command = [sys.executable, "-m", "tests.data_pipeline.batches.stream_process", str(self.file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    def lines(self) -> list[str]:
        """Whole lines of the log; the kill may have torn the last."""
        return (
            [line for line in self.log.read_text().splitlines(True) if line.endswith("\n")]
            if self.log.exists()
            else []
        )

    def wait_for(self, lines: int) -> None:
        """Waits until the log has this many lines, or the process has ended well."""
        assert self.process is not None
        process = self.process
        wait_until(lambda: len(self.lines()) >= lines or process.poll() is not None)
        assert self.process.poll() in (None, 0), self.process.communicate()[1]

    def kill(self) -> None:
        """kill -9; a torn line is ended, so that the next process begins one of its own."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL, "it had come to its end"
        if self.log.exists() and not self.log.read_text().endswith("\n"):
            self.log.write_text("".join(self.lines()))


def check_resume(corpus: Path, tokenizer: Path, folder: Path, workers: int, hosts: int, kills: int) -> None:
    common = {"corpus": str(corpus), "tokenizer": str(tokenizer), "strategy": "best_fit", "hosts": hosts}
    children = [Child(folder / str(host), **common, workers=workers, host=host) for host in range(hosts)]
    dice = random.Random(f"{workers} {hosts}")
    try:
        for child in children:
            for _ in range(kills):
                lines = dice.randint(1, 9)
                wanted = len(child.lines()) + lines
                child.start(at_most=lines + 2)
                child.wait_for(wanted)
                time.sleep(dice.random() * 0.02)  # so that it is killed anywhere
                child.kill()
            child.start()
        for child in children:
            child.wait_for(10**9)
    finally:
        for child in children:
            if child.process is not None:
                child.process.kill()
    handed_out = []
    for host, child in enumerate(children):
        alone = Streams(**common, workers=0, host=host)
        wanted = [f"{number} {alone.next()}\n" for number in range(COUNT)]
        alone.close()
        found = child.lines()
        assert set(found) == set(wanted)
        assert found[-1] == wanted[-1]
        handed_out.append(wanted)
    if hosts > 1:
        assert not set(handed_out[0]) & set(handed_out[1])


def test_killed_and_restored(corpus, qwen_directory, tmp_path):
    """Two hosts with four decoding processes each."""
    check_resume(corpus, qwen_directory, tmp_path / "run", workers=4, hosts=2, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("workers", [0, 4])
def test_killed_again_and_again(corpus, qwen_directory, tmp_path, workers, hosts):
    check_resume(corpus, qwen_directory, tmp_path / "run", workers=workers, hosts=hosts, kills=4)
