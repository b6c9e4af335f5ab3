"""Text equality of the released variant, against what mathruler's `grade_answer` says of the same pairs."""

import pytest

from onethinker_jax.rewards.grading import evaluable, grade_answer

EQUAL = [
    ("B", "B"),
    ("b ", "B"),
    ("(B)", "B"),
    ("((B))", "B"),
    ("[B]", "B"),
    ("1B", "B"),  # a product
    ("B/1", "B"),
    ("{B}", "B"),
    ("$B$", "B"),
    ("B%", "B"),
    ("B cm", "B"),
    ("x=B", "B"),
    ("\\text{Red}", "red"),
    ("1,234", "1234"),
    ("12.0", "12"),
    ("10\\%", "10"),
    ("5 cm", "5"),
    ("30^\\circ", "30"),
    ("3 million", "3*10^6"),
    ("(1, 2)", "(1,2)"),
    ("\\frac{1}{2}", "1/2"),
    ("\\frac12", "0.5"),
    ("0.5", "1/2"),
    ("7 3/4", "7+3/4"),
    ("x+1", "1+x"),
    ("x*x", "x^2"),
    ("\\sqrt{12}", "2\\sqrt{3}"),
    ("\\sqrt2", "\\sqrt{2}"),
    ("k = 3", "3"),
    ("2 or 3", "2 , 3"),
]
UNEQUAL = [
    ("B.", "B"),
    ("B:", "B"),
    ("B)", "B"),
    ("B. a dog", "B"),
    ("Option B", "B"),
    ("A", "E"),
    ("A or B", "B"),
    ("A, B", "B"),
    ("-B", "B"),
    ("", "B"),
    ("(", "B"),
    ("2/4", "1/2"),
    ("12.5", "12"),
    ("[1, 2]", "(1,2)"),
    ("(1, 2, 3)", "(1,2)"),
    ("yes", "no"),
    ("yes", "y*e*s"),
    ("x^{2}", "x*x*x"),
]


@pytest.mark.parametrize(("answer", "truth"), EQUAL)
def test_equal(answer, truth):
    assert grade_answer(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), UNEQUAL)
def test_unequal(answer, truth):
    assert not grade_answer(answer, truth)


def test_what_the_parser_may_see():
    """It evaluates what it reads, so no name that could be called gets through."""
    assert evaluable("(2x)-(x+sqrt(y))")
    for expression in (
        "exec(1)",
        "x.__class__",
        "lambda:0",
        "x if y",
        "9^9^9",
        "x^(9)",
        "x^99",
        "'a'",
        "[x]",
    ):
        assert not evaluable(expression), expression
