"""Equivalence of short answers, and the worker process behind the mathematics."""

import os
import signal
import threading
from fractions import Fraction

import pytest

from onethinker_jax.rewards.equivalence import equivalence
from tests.waiting import HANG_S


@pytest.fixture
def grader():
    made = equivalence.MathGrader(limit_s=0.5)
    yield made
    made.close()


def test_plain_numbers():
    assert equivalence.plain_number("1,234.5 ") == 1234.5
    assert equivalence.plain_number("") is None
    assert equivalence.plain_number("1" * 250_000) == float("inf")


def test_a_dead_worker_is_replaced(grader):
    assert grader.equal("$\\frac{1}{2}$", "$0.5$") is True
    process = grader._worker.process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert grader.equal("$\\frac{1}{2}$", "$0.25$") is False
    assert grader.ended == 0
    assert grader.vanishes("(2x)-(x+x)")
    assert not grader.vanishes("(2x)-(")
    assert grader.same_value("\\frac{x}{2}", "0.5x")
    assert not grader.same_value("x", "y")
    assert not grader.same_value("x", "\\frac{")
    assert grader.same_value("\\pi", "\\frac{314159}{100000}", Fraction(1, 200_000))
    assert not grader.same_value("\\pi", "\\frac{314159}{100000}")
    assert grader.ended == 0


def test_a_worker_killed_over_a_comparison_changes_no_verdict(grader):
    assert grader.equal("$\\frac{1}{2}$", "$0.5$") is True
    killed = grader._worker.process
    os.kill(killed.pid, signal.SIGSTOP)
    threading.Timer(0.3, killed.kill).start()
    assert grader.equal("$\\frac{3}{4}$", "$0.75$") is True
    assert killed.returncode == -signal.SIGKILL
    assert grader.ended == 0


def test_a_comparison_without_end_is_ended_by_its_processor_time(grader):
    """One big-integer operation, which no signal handler in Python could interrupt."""
    assert grader.equal("$\\frac{3}{4}$", "$0.75$") is True
    process = grader._worker.process
    assert grader.equal("$\\frac{3}{4}$", "$9^{9^{9}}$") is False
    assert process.returncode == -signal.SIGPROF
    assert grader.ended == 1


def test_a_worker_that_gets_no_processor_time_is_given_up(grader):
    assert grader.equal("$1$", "$1$") is True
    grader.wall_limit_s = 0.3
    for answer in ("$1$", "1" * 1_000_000):  # the second does not even fit into the pipe
        os.kill(grader._worker.process.pid, signal.SIGSTOP)
        assert grader.equal("$1$", answer) is False
        grader.wall_limit_s = HANG_S
        assert grader.equal("$1$", "$1$") is True
        grader.wall_limit_s = 0.3
    assert grader.ended == 2
