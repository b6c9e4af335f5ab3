"""Grading of short answers, and the worker process behind the mathematics."""

import os
import signal

import pytest

from onethinker_jax.rewards import equivalence


@pytest.mark.parametrize(
    ("answer", "truth", "equal"),
    [
        ("B", "B", True),
        ("b ", "B", True),
        ("(B)", "B", True),
        ("B.", "B", False),
        ("A", "E", False),
        ("\\text{Red}", "red", True),
        ("1,234", "1234", True),
        ("12.0", "12", True),
        ("10\\%", "10", True),
        ("5 cm", "5", True),
        ("30^\\circ", "30", True),
        ("(1, 2)", "(1,2)", True),
        ("[1, 2]", "(1,2)", False),
        ("(1, 2, 3)", "(1,2)", False),
        ("\\frac{1}{2}", "1/2", True),
        ("2/4", "1/2", False),
        ("0.5", "1/2", True),
        ("x+1", "1+x", True),
        ("((B))", "B", True),
        ("\\sqrt{12}", "2\\sqrt{3}", True),
        ("\\frac12", "0.5", True),
        ("k = 3", "3", True),
        ("", "B", False),
        ("(", "B", False),
    ],
)
def test_grading_as_mathruler_does(answer, truth, equal):
    assert equivalence.grade_answer(answer, truth) is equal


def test_options():
    assert equivalence.option_letter("(c) a dog") == "C"
    assert equivalence.option_letter("a dog") is None
    assert equivalence.options_equivalent("a dog", "A dog.")


def test_a_dead_worker_is_replaced():
    grader = equivalence.MathGrader()
    try:
        assert grader.equal("$\\frac{1}{2}$", "$0.5$") is True
        worker = grader._worker
        assert worker is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        assert grader.equal("$\\frac{1}{2}$", "$0.25$") is False
        assert grader.timeouts == 0
    finally:
        grader.close()


def test_a_comparison_without_end_is_ended():
    grader = equivalence.MathGrader(time_limit_s=0.5)
    try:
        assert grader.equal("$\\frac{3}{4}$", "$9^{9^{9}}$") is False
        assert grader.timeouts == 1
        assert grader._worker is None
    finally:
        grader.close()
