"""The watchdog: a step that does not end ends the run, with stacks, one line, and a status of its own."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.health.watchdog import NEVER, REMEMBERED, STALLED, Watchdog
from onethinker_jax.train.log.log import read_metrics
from tests.places import ROOT
from tests.train import running
from tests.waiting import HANG_S, wait_until

SETTINGS = HealthSettings(
    step_timeout_factor=3.0, step_timeout_seconds=60.0, first_step_timeout_seconds=1000.0
)


class Watched:
    """A watchdog on a clock that the test moves; `ended` holds the statuses it ended the process with."""

    def __init__(self, folder: Path, settings: HealthSettings = SETTINGS) -> None:
        self.now, self.step = 5000.0, 0
        self.ended: list[int] = []
        self.stacks = folder / "stacks.txt"
        self.dog = Watchdog(settings, self.stacks, stage="rl", clock=lambda: self.now, end=self.ended.append)

    def take(self, *seconds: float) -> None:
        """Steps that take so long each."""
        for one in seconds:
            self.now += one
            self.step += 1
            self.dog.beat(self.step)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    with made.dog:
        yield made


def test_the_limit_is_many_times_the_longest_of_the_last_steps(watched: Watched) -> None:
    """The first two steps of a start compile; none is usual before the third."""
    assert watched.dog.limit == 1000
    watched.take(700, 650)
    assert watched.dog.limit == 1000
    watched.take(10)
    assert watched.dog.limit == 60  # 3 x 10 is below the least
    watched.take(30, 20)
    assert watched.dog.limit == 90
    watched.take(*[25] * (REMEMBERED - 1))
    assert watched.dog.limit == 75  # the 30 is forgotten


def test_a_step_that_does_not_end(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    """At its limit and not before; the stacks are those of all threads."""
    held, told = threading.Event(), threading.Event()

    def a_thread_that_waits() -> None:
        told.set()
        held.wait(HANG_S)

    thread = threading.Thread(target=a_thread_that_waits)
    thread.start()
    assert told.wait(HANG_S)
    watched.take(700, 650, 30)
    watched.now += 90
    assert not watched.dog.look() and not watched.ended
    watched.now += 1
    assert watched.dog.look()
    held.set()
    thread.join()
    assert set(watched.ended) == {STALLED}
    text = watched.stacks.read_text()
    assert text.startswith("rl, after step 3: no end for 91 s\n")
    assert "a_thread_that_waits" in text and "test_a_step_that_does_not_end" in text
    line = capfd.readouterr().err.splitlines()[0]
    assert line == (
        "error: rl: the step after 3 has not ended for 91 s (the longest of the last 1 took 30 s): the stacks of all "
        f"threads are in {watched.stacks}; the same command goes on from the newest checkpoint"
    )


def test_a_pause_is_no_part_of_a_step(watched: Watched) -> None:
    watched.take(1, 1, 30)
    watched.now += 80
    with watched.dog.paused():
        watched.now += 5000
        assert not watched.dog.look()
    assert not watched.dog.look()
    watched.take(5)
    assert watched.dog.limit == 3 * 85


def test_the_first_step(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    watched.now += 1001
    assert watched.dog.look()
    assert (
        "the step after 0 has not ended for 1001 s (health.first_step_timeout_seconds)"
        in capfd.readouterr().err
    )


def test_a_first_pass_may_compile_all_the_while(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    """However short its parts: its limit is that of first steps. Another watchdog, paused meanwhile, goes on."""
    watched.take(1, 1, 30)
    ended: list[int] = []
    with watched.dog.paused():
        inner = Watchdog(
            SETTINGS,
            watched.stacks,
            stage="held-out records",
            stalled="no answer has come after {}",
            known_after=NEVER,
            clock=lambda: watched.now,
            end=ended.append,
        )
        with inner:
            for done in range(1, 9):
                watched.now += 1
                inner.beat(done)
            watched.now += 1000
            assert not inner.look() and inner.limit == 1000
            watched.now += 1
            assert inner.look()
    assert set(ended) == {STALLED} and not watched.ended
    assert (
        "held-out records: no answer has come after 8 for 1001 s (health.first_step" in capfd.readouterr().err
    )
    watched.stacks.write_text("")
    with watched.dog.paused(), Watchdog(SETTINGS, watched.stacks, stage="sft"):
        pass
    assert watched.stacks.is_file()
    watched.now += 91
    assert watched.dog.look() and "rl, after step 3" in watched.stacks.read_text()


def test_nothing_is_left_where_all_is_well(tmp_path: Path) -> None:
    """Nor watched where it is switched off."""
    made = Watched(tmp_path)
    with made.dog:
        made.take(1, 1, 1)
    assert not list(tmp_path.iterdir())
    off = Watched(tmp_path, HealthSettings(step_timeout_factor=0))
    with off.dog:
        assert not list(tmp_path.iterdir())


def test_a_wall_clock_that_jumps_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not even asked."""

    def asked() -> float:
        raise AssertionError("the watchdog asked the wall clock")

    monkeypatch.setattr(time, "time", asked)
    ended: list[int] = []
    with Watchdog(SETTINGS, tmp_path / "stacks.txt", stage="sft", end=ended.append) as dog:
        for step in range(5):
            dog.beat(step)
        assert not dog.look() and not ended


HOLDS_THE_INTERPRETER = """
import re, sys
from pathlib import Path
from onethinker_jax.train.config.health import HealthSettings
from onethinker_jax.train.health import watchdog

watchdog.INTERPRETER_S = 0.5
settings = HealthSettings(first_step_timeout_seconds=0.5)
with watchdog.Watchdog(settings, Path(sys.argv[1]), stage="rl"):
    re.match(r"(a+)+b", "a" * 60)
"""


def test_a_thread_that_never_gives_the_interpreter_back(tmp_path: Path) -> None:
    """C's own watch writes the stacks then, and the status is 1."""
    stacks = tmp_path / "stacks.txt"
    command = [sys.executable, "-c", HOLDS_THE_INTERPRETER, str(stacks)]
    result = subprocess.run(command, cwd=ROOT, env=running.in_tests(), timeout=HANG_S, check=False)
    assert result.returncode == 1
    assert "Timeout" in stacks.read_text() and "re/__init__.py" in stacks.read_text()


def test_a_stalled_sampler_ends_the_run(tmp_path: Path) -> None:
    """The whole command: status 124, one line, the place of the stall in the stacks, no reward service left."""
    flags = (
        "--sft.steps",
        0,
        "--rl.steps",
        5,
        "--evaluation.no-sampled",
        "--evaluation.sampler.max-new-tokens",
        2,
    )
    limits = ("--health.step-timeout-factor", 2, "--health.step-timeout-seconds", 2)
    module = ["-m", "tests.train.health.stalled", "rollout", "smoke", "--out", tmp_path, *flags, *limits]
    (process,) = running.start_together([module])
    ((status, said),) = running.ends_of([process])
    assert status == STALLED, said
    stacks = tmp_path / "smoke" / "stacks.txt"
    errors = [line for line in said.splitlines() if "error" in line]
    assert len(errors) == 1 and errors[0].startswith("error: rl: the step after 3 has not ended for ")
    assert f"the stacks of all threads are in {stacks}; the same command goes on" in errors[0]
    assert "in parts" in stacks.read_text() and "in roll_out" in stacks.read_text()
    rows = read_metrics(tmp_path / "smoke" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert (tmp_path / "smoke" / "checkpoints" / "2" / "state").is_dir()
    service = re.search(r"reward service: .*, process (\d+)", said)
    assert service is not None
    process_of = Path("/proc") / service[1] / "cmdline"  # of a zombie that nobody reaps it is empty
    wait_until(
        lambda: not process_of.exists() or not process_of.read_bytes(), what=lambda: f"{service[1]} goes on"
    )


def test_answers_and_an_export_that_do_not_end(tmp_path: Path) -> None:
    """The first pass over the held-out records, which compiles, takes longer than the limit and is not ended."""
    flags = ("--sft.steps", 0, "--rl.steps", 0, "--evaluation.sampler.max-new-tokens", 2)
    limits = ("--health.step-timeout-factor", 1.01, "--health.step-timeout-seconds", 0)

    def ends(what: str) -> str:
        module = ["-m", "tests.train.health.stalled", what, "smoke", "--out", tmp_path, *flags, *limits]
        (process,) = running.start_together([module])
        ((status, said),) = running.ends_of([process])
        assert status == STALLED, said
        errors = [line for line in said.splitlines() if "error" in line]
        assert len(errors) == 1
        return errors[0]

    heldout, stacks = tmp_path / "smoke" / "heldout", tmp_path / "smoke" / "stacks.txt"
    said = ends("answers")
    assert said.startswith("error: held-out records, rl model: greedy answers: no answer has come after ")
    assert "in tell_and_hold" in stacks.read_text()
    assert (heldout / "fresh.jsonl").is_file() and not (heldout / "rl.jsonl").exists()
    said = ends("export")
    assert said.startswith("error: export: it has not ended for ")
    assert "in _export" in stacks.read_text() and (heldout / "rl.jsonl").is_file()
