"""A run whose processes are killed again and again, started anew as a scheduler would, until it is done.

Only processes that descend from the trainer started here are killed: they are found in /proc by their parents.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onethinker_jax.train.log.log import read_metrics
from tests.places import ROOT
from tests.train import running

# What of the run is killed -> what its command line holds. A checkpoint's writer is the trainer.
MODULES = {
    "reward service": "onethinker_jax.rewards.server",
    "media worker": "onethinker_jax.data_pipeline.media.reading.media_worker",
    "math worker": "onethinker_jax.rewards.equivalence.math_worker",
}
TRAINER, CHECKPOINT = "trainer", "trainer that writes a checkpoint"
VICTIMS = {  # SFT asks neither the service nor mathematics
    "sft": [TRAINER, CHECKPOINT, "media worker"],
    "rl": [TRAINER, CHECKPOINT, *MODULES],
}
LATEST_S = 1.5
"""A kill comes at most this long after its step: in the next steps, a start, a compilation, an answer."""


@dataclass(frozen=True)
class Kill:
    """The victim, the step of a stage from which on it is killed, and how many seconds after that."""

    stage: str
    step: int
    victim: str
    delay_s: float = 0.0


def planned(count: int, seed: int, steps: dict[str, int]) -> list[Kill]:
    """`count` kills in the order of the run, each victim of a stage about as often; steps and times are random.

    None is meant for the last third of a stage: the run is not to be done before its last kill.
    """
    draw = random.Random(seed)
    places = [(stage, step) for stage in steps for step in range(1, 1 + steps[stage] * 2 // 3)]
    chosen = sorted(draw.choices(range(len(places)), k=count))
    bags: dict[str, list[str]] = {stage: [] for stage in steps}
    kills = []
    for stage, step in (places[number] for number in chosen):
        if not bags[stage]:
            bags[stage] = draw.sample(VICTIMS[stage], k=len(VICTIMS[stage]))
        kills.append(Kill(stage, step, bags[stage].pop(), draw.uniform(0, LATEST_S)))
    return kills


@dataclass
class Endured:
    """What happened to a run that came to its end."""

    killed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    said: list[str] = field(default_factory=list)  # by each process that ended


class Harness:
    """One run of the trainer in `out`/smoke, of as many processes as it takes."""

    def __init__(self, out: Path, flags: Sequence[object]):
        self.folder, self.result = out / "smoke", Endured()
        words = ["-m", "onethinker_jax.train", "smoke", "--out", out, *flags]
        self._command = [sys.executable, *map(str, words)]
        out.mkdir(parents=True, exist_ok=True)
        self._log = out / "said"
        self._process = self._start()

    def run(self, kills: Sequence[Kill]) -> Endured:
        """Kills as planned, starts again what ended, and returns once the run is done.

        Fails when a process ends otherwise than by a kill of ours, or the run is done before the last one.
        """
        try:
            for kill in kills:
                self._kill(kill)
            while self._ended() != 0:
                self._process = self._start()
            return self.result
        finally:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        self.result.starts += 1
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._command, env=running.in_tests(), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def _kill(self, kill: Kill) -> None:
        self._until(lambda: self._reached(kill), f"{kill}: no such step")
        time.sleep(kill.delay_s)  # the moment is random; nothing waits for it
        if kill.victim in MODULES:
            self._until(lambda: self._descendants(MODULES[kill.victim]), f"{kill}: no such process")
            victims = self._descendants(MODULES[kill.victim])
        else:
            if kill.victim == CHECKPOINT:
                self._until(self._writes, f"{kill}: no checkpoint is written")
            victims = [self._process.pid]
        for victim in victims[:1]:
            os.kill(victim, signal.SIGKILL)
            self.result.killed[kill.victim] += 1
        if victims == [self._process.pid]:
            assert self._process.wait() == -signal.SIGKILL, self._log.read_text()
            self._process = self._start()

    def _until(self, condition, what: str) -> None:
        """Waits; starts the trainer again where it ended without its reward service."""
        while not condition():
            if self._process.poll() is not None:
                assert self._ended() != 0, f"{what}, and the run is done"
                self._process = self._start()
            time.sleep(0.001)

    def _ended(self) -> int:
        """Waits for the process to end, which only a lost reward service may make a failure; its status."""
        status = self._process.wait()
        said = self._log.read_text()
        self.result.said.append(said)
        if status:
            lost = [
                line for line in said.splitlines() if line.startswith("error: ") and "reward.sock" in line
            ]
            assert status == 1 and lost and self.result.killed["reward service"], f"status {status}: {said}"
        return status

    def _reached(self, kill: Kill) -> bool:
        file = self.folder / "metrics.jsonl"
        rows = read_metrics(file) if file.exists() else []
        return any(row["stage"] == kill.stage and row["step"] >= kill.step for row in rows)

    def _writes(self) -> bool:
        """Whether a checkpoint is being written: Orbax gives it its name when it is whole."""
        return any((self.folder / "checkpoints").glob("*tmp*"))

    def _descendants(self, module: str) -> list[int]:
        """Of the trainer: the processes that run a module."""
        found, family = [], {self._process.pid}
        for pid, parent, words in _processes():
            if parent in family:
                family.add(pid)
                if module in words:
                    found.append(pid)
        return found


def _processes() -> list[tuple[int, int, list[str]]]:
    """Number, parent and command line of each process here, in the order in which they started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended meanwhile
                continue
            if stat[0] != "Z":
                found.append((int(stat[19]), int(folder.name), int(stat[1]), words))
    return [(pid, parent, words) for _, pid, parent, words in sorted(found)]
