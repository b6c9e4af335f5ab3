"""What SIGTERM leads to: outside of training, while a step goes on, and at the deadline."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from onethinker_jax import command_line
from onethinker_jax.command_line import Terminated
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.stopping.notice import Notice, StopKind
from tests.train import running
from tests.waiting import HANG_S

LONG = PreemptionSettings(deadline=100 * HANG_S, exit_status=75)


@pytest.fixture
def log(tmp_path: Path) -> Any:
    with RunLog(tmp_path) as log:
        yield log


def test_outside_of_training_it_ends_the_run_in_order() -> None:
    """What closes the run is not disturbed by a second one."""
    notice, before, closed = Notice(LONG), signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Terminated) as stop, notice.listening():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            closed.append(True)
    assert closed and stop.value.status == 75 and not notice.cut.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_is_written_to_its_end() -> None:
    notice, written = Notice(LONG), []
    with pytest.raises(Terminated) as stop, notice.listening():
        with notice.writing():
            signal.raise_signal(signal.SIGTERM)
            written.append(True)
        written.append(True)
        notice.heed()
    assert stop.value.status == 75 and len(written) == 2


def test_a_step_has_half_of_the_deadline(log: RunLog) -> None:
    cut, given_up = threading.Event(), threading.Event()
    notice = Notice(PreemptionSettings(deadline=2 * HANG_S, exit_status=75))
    with (
        pytest.raises(Terminated),
        notice.listening(),
        notice.deferred(log, cut=cut.set, give_up=given_up.set),
    ):
        assert not notice.reached()
        signal.raise_signal(signal.SIGTERM)
        assert notice.reached() and notice.agreed(Hosts()) is StopKind.PREEMPTION
        assert not cut.is_set()
        signal.raise_signal(signal.SIGTERM)  # or at once
        assert given_up.wait(HANG_S) and notice.cut.is_set() and cut.is_set()

    quick, cut = Notice(PreemptionSettings(deadline=0.02)), threading.Event()
    with pytest.raises(Terminated) as stop, quick.writing(), quick.deferred(log, cut=cut.set):
        signal.raise_signal(signal.SIGTERM)
        assert cut.wait(HANG_S)
    assert stop.value.status == 143


def test_ctrl_c_does_not_cut(log: RunLog) -> None:
    notice, cut = Notice(LONG), threading.Event()
    with pytest.raises(KeyboardInterrupt) as stop, notice.deferred(log, cut=cut.set):
        signal.raise_signal(signal.SIGINT)
        assert notice.reached() and notice.agreed(Hosts()) is StopKind.INTERRUPT
    assert not isinstance(stop.value, Terminated) and not cut.is_set()
    with pytest.raises(Terminated), Notice(LONG).deferred(log) as both:  # SIGTERM after it counts for more
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert both.kind is StopKind.PREEMPTION


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_second_signal_waits_for_no_lock_of_the_main_thread(
    log: RunLog, number: signal.Signals, end: type[BaseException]
) -> None:
    """It comes while the main thread holds what giving up takes."""
    lock, given_up = threading.Lock(), threading.Event()

    def give_up() -> None:
        with lock:
            given_up.set()

    with pytest.raises(end), Notice(LONG).deferred(log, give_up=give_up), lock:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert number == signal.SIGTERM and not given_up.is_set()
    assert given_up.wait(HANG_S)


def test_the_command_ends_with_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Any) -> None:
        raise Terminated(status=75)

    handler = signal.getsignal(signal.SIGINT)
    try:
        assert command_line.main(lambda words: words, run, [], stopped="the same command goes on") == 75
    finally:
        signal.signal(signal.SIGINT, handler)
    assert capsys.readouterr().err == "stopped; the same command goes on\n"


HANGS = """
import hashlib, signal, sys
from pathlib import Path
from onethinker_jax.train.config.preemption import PreemptionSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.stopping.notice import Notice
notice = Notice(PreemptionSettings(deadline=0.2, exit_status=75))
with RunLog(Path(sys.argv[1])) as log, notice.listening(), notice.deferred(log):
    signal.raise_signal(signal.SIGTERM)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # no handler of Python's runs before this ends
"""


def test_a_step_that_hangs_in_a_library_ends_at_the_deadline(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=running.in_tests())
    assert result.returncode == 75, result.stderr
    (line,) = result.stderr.splitlines()
    assert "did not end within preemption.deadline 0.2 s: the same command goes on" in line
    reading, unread = os.pipe()
    os.close(reading)
    result = subprocess.run(command, stderr=unread, timeout=HANG_S, env=running.in_tests())
    os.close(unread)
    assert result.returncode == 75


def test_settings_that_cannot_be() -> None:
    with pytest.raises(SettingError, match=r"preemption.deadline 0 must be positive"):
        PreemptionSettings(deadline=0)
    with pytest.raises(SettingError, match=r"preemption.exit_status 256 is not in 1 .. 255"):
        PreemptionSettings(exit_status=256)


def test_two_processes_stop_at_the_same_call() -> None:
    """Only one gets the signal. They run at paces of their own, and both end with the status of SIGTERM."""
    commands = [
        ["-m", "tests.train.stopping.peer_process", number, port]
        for port in [running.free_port()]
        for number in range(2)
    ]
    ends = running.ends_of(running.start_together(commands))
    assert [status for status, _ in ends] == [75, 75], ends
    calls = [int(said.split("stopped at call ")[1].split()[0]) for _, said in ends]
    assert calls[0] == calls[1] > 5, ends
