"""What takes long says so, by a clock of the test's own: never a silent half minute, never a flood of lines."""

import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from onethinker_jax.train.log.compilation_watch import CompilationWatch
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.log.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A log whose seconds pass when the test says so; once a second it is given its heartbeat."""

    def __init__(self, directory: Path, *, terminal: bool = False) -> None:
        self.clock, self.out = Clock(), io.StringIO()
        console = Console(file=self.out, width=100, force_terminal=terminal, color_system=None)
        self.log = RunLog(directory, console=console, clock=self.clock, beats=False)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            self.log.beat()

    def lines(self) -> list[str]:
        """Without the time of day."""
        return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in self.out.getvalue().splitlines()]


@pytest.fixture
def run(tmp_path: Path):
    made = Run(tmp_path)
    with made.log:
        yield made


def test_what_is_soon_over_says_nothing(run: Run) -> None:
    with run.log.doing("exporting"):
        run.wait(2)
    assert run.lines() == []


def test_what_takes_long_says_so_twice_a_minute(run: Run) -> None:
    with run.log.doing("exporting"):
        run.wait(100)
    assert run.lines() == [
        "exporting  elapsed 0:03",
        "exporting  elapsed 0:33",
        "exporting  elapsed 1:03",
        "exporting  elapsed 1:33",
        "exporting: done in 1:40",
    ]


def test_what_is_counted_says_how_far_it_is_and_how_long_it_takes(run: Run) -> None:
    with run.log.doing("held-out records", 640, unit="records") as doing:
        for second in range(1, 41):
            run.wait(1)
            doing.reached(16 * second)
    lines = run.lines()
    assert lines[0] == "held-out records 32/640 records  left 0:37"
    assert lines[1] == "held-out records 208/640 records  left 0:27"
    assert lines[-1] == "held-out records: 640 records in 0:40" and len(lines) == 5


def test_a_thousand_steps_a_second_are_no_thousand_lines(run: Run) -> None:
    with run.log.doing("lengths", 100_000, unit="records") as doing:
        for number in range(1, 30_001):
            run.clock.now += 0.001
            doing.reached(number)
    assert len(run.lines()) == 4  # after 3, 13, 23 s, and at the end


def test_a_long_step_says_what_it_does(run: Run) -> None:
    run.log.stage("rl", 72)
    run.log.phase("sampling 3/24 prompts")
    run.wait(103)
    lines = run.lines()[1:]
    assert lines == [f"rl 0/72  elapsed {time}  sampling 3/24 prompts" for time in ("0:30", "1:00", "1:30")]


def test_steps_that_speak_are_not_spoken_for(run: Run) -> None:
    run.log.stage("sft", 100)
    for step in range(1, 61):
        run.wait(1)
        run.log.metrics(step, {"loss": 1.0})
    assert len(run.lines()) == 1 + 6  # the stage's, and one every ten seconds


def test_inside_of_a_long_thing_the_inner_one_is_said(run: Run) -> None:
    with run.log.doing("answering"):
        run.wait(4)
        with run.log.doing("reading the prompts"):
            run.wait(40)
        run.wait(5)
    assert [line.partition("  ")[0] for line in run.lines()] == [
        "answering",
        "reading the prompts",
        "reading the prompts",
        "reading the prompts: done in 0:40",
        "answering: done in 0:49",
    ]


def test_an_error_ends_it(run: Run) -> None:
    with pytest.raises(ValueError, match="broken"), run.log.doing("exporting"):
        raise ValueError("broken")
    run.wait(60)
    assert run.lines() == []


def test_a_terminal_shows_a_bar_and_leaves_none(tmp_path: Path) -> None:
    run = Run(tmp_path, terminal=True)
    with run.log:
        with run.log.doing("held-out records", 640, unit="records") as doing:
            run.wait(2)
            doing.reached(320)
            run.wait(30)
        assert "320/640 records" in run.out.getvalue() and "done in" not in run.out.getvalue()
        run.log.stage("sft", 10)
        with run.log.doing("reading checkpoint 3"):
            run.wait(2)
        run.log.metrics(10, {"loss": 0.5})
    assert run.out.getvalue().rstrip().endswith("\x1b[?25h") and "10/10" in run.out.getvalue()


# ---------------------------------------------------------------- compilations


class Shown:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open: list[Progress] = []

    def begin(self, progress: Progress) -> None:
        self.begun.append(progress.name)
        self.open.append(progress)

    def end(self, progress: Progress, *, said: bool = True) -> None:
        assert not said
        self.open.remove(progress)


def test_each_program_is_shown_while_it_is_compiled() -> None:
    shown, within = Shown(), []
    watch = CompilationWatch(shown, Clock())

    @jax.jit
    def accumulate(x: jax.Array) -> jax.Array:
        within.append([progress.name for progress in shown.open])  # while it is traced
        return jnp.sin(x) * 2

    try:
        accumulate(jnp.arange(3.0))
        count = len(shown.begun)
        accumulate(jnp.arange(3.0))
    finally:
        watch.close()
    assert within == [["compiling the gradients of a micro-batch"]]
    assert shown.begun.count("compiling the gradients of a micro-batch") >= 2  # traced, then compiled
    assert len(shown.begun) == count and shown.open == []
    jax.jit(lambda x: x + 3)(jnp.arange(5.0))
    watch.close()
    assert len(shown.begun) == count


def test_a_failed_trace_is_not_shown_for_ever() -> None:
    shown = Shown()
    watch = CompilationWatch(shown, Clock())
    try:
        with pytest.raises(ValueError, match="no"):
            jax.jit(broken)(jnp.arange(3.0))
    finally:
        watch.close()
    assert shown.open == []


def broken(x: jax.Array) -> jax.Array:
    raise ValueError("no")


def test_a_compilation_is_said_once(run: Run) -> None:
    """Tracing, lowering and compiling of one program are one line."""

    def slow(x: jax.Array) -> jax.Array:
        run.wait(4)
        return x * 5

    jax.jit(slow)(jnp.arange(7.0))
    assert run.lines() == ["compiling slow  elapsed 0:03  (first time, may take a minute)"]
