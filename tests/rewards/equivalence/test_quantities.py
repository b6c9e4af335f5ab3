"""Numbers with what stands beside them: one reader for records, rewards and the demo."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onethinker_jax.data_pipeline.records.ground_truth import answer_error
from onethinker_jax.rewards import GroundTruthError, score_response
from onethinker_jax.rewards.equivalence.quantities import number_error, number_value, read_number, readings

READ = {
    "12": 12,
    "12.": 12,
    " +12 ": 12,
    "−12": -12,
    "minus 12": -12,
    "1,200": 1200,
    "1 200": 1200,
    "1\\,200": 1200,
    "12,345.5": 12345.5,
    "1.2e3": 1200,
    "1.2×10³": 1200,
    "1.2 \\times 10^{3}": 1200,
    "½": 0.5,
    "2½": 2.5,
    "2 1/2": 2.5,
    "3/4": 0.75,
    "\\frac{3}{4}": 0.75,
    "12%": 12,
    "12 percent": 12,
    "12\\%": 12,
    "１２％": 12,
    "12 cm": 12,
    "12cm": 12,
    "5m": 5,
    "12 km/h": 12,
    "9.8 m/s²": 9.8,
    "7\\ \\mathrm{cm^{2}}": 7,
    "90°": 90,
    "$12": 12,
    "\\$12": 12,
    "$12$": 12,
    "€12": 12,
    "12 dollars": 12,
    "USD 12": 12,
    "about 12": 12,
    "≈12": 12,
    "~12": 12,
    "approximately 12 cm": 12,
    "12 people": 12,
    "5 years old": 5,
    "12 million": 12e6,
    "**12**": 12,
    "\\boxed{12}": 12,
    "The answer is 12.": 12,
    "x = 12": 12,
    "Total: 12": 12,
    "twelve": 12,
    "Twenty-one people": 21,
}
NO_NUMBER = (
    *(
        "",
        "many",
        "12 to 15",
        "12-15",
        "12–15",
        "12 or 13",
        "12 and 13",
        "12, 13",
        "12 of 15",
        "12+",
        "12 times",
        "x = 12 or 13",
        "12 out of 15",
        "not 12",
    ),
    *(
        "at least 12",
        "more than 12",
        "12?",
        "1 0",
        "1.2.3",
        "--5",
        "nan",
        "inf",
        "NaN",
        "Infinity",
        "1e4000",
        "1/0",
        "3,14",
    ),
    *(
        "12:30",
        "x",
        "5x",
        "x = y",
        "one or two",
        "It is 12 or so",
        "5 feet 3 inches",
        "A 12",
        "true",
        "5% cm",
    ),
)


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_one_reader_for_record_reward_and_check(text, value):
    assert number_value(text) == pytest.approx(value, rel=1e-12)
    for problem_type in ("numerical", "regression"):
        task: dict[str, Any] = {"problem_type": problem_type, "data_type": "image"}
        assert answer_error(text, problem_type, "image", ()) is None
        for answer, truth in ((text, f"{value}"), (f"{value}", text), (text, text)):
            score = score_response(f"<think>x</think><answer>{answer}</answer>", truth, **task)
            assert score.accuracy == 1.0, (answer, truth)
        wrong = f"<think>x</think><answer>{10 * value + 1}</answer>"
        assert score_response(wrong, text, **task).accuracy == 0.0


@pytest.mark.parametrize("text", NO_NUMBER)
def test_what_names_no_single_number(text):
    assert read_number(text) is None
    for problem_type in ("numerical", "regression"):
        task: dict[str, Any] = {"problem_type": problem_type, "data_type": "image"}
        assert answer_error(text, problem_type, "image", ()) is not None
        assert score_response(f"<think>x</think><answer>{text}</answer>", "12", **task).accuracy == 0.0
        with pytest.raises(GroundTruthError, match=f"{problem_type}: the ground truth .* is not a number"):
            score_response("<think>x</think><answer>12</answer>", text, **task)


def test_a_numerical_truth_may_be_an_expression_of_numbers():
    for truth, right, wrong in (
        ("2\\sqrt{3}", "√12", "3.46"),
        ("\\frac{\\pi}{4}", "pi/4", "1"),
        ("2^5", "32", "25"),
    ):
        assert number_error(truth, "numerical") is None
        assert number_error(truth, "regression") is not None
        task: dict[str, Any] = {"problem_type": "numerical", "data_type": "image"}
        assert score_response(f"<think>x</think><answer>{right}</answer>", truth, **task).accuracy == 1.0
        assert score_response(f"<think>x</think><answer>{wrong}</answer>", truth, **task).accuracy == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "equal"),
    [
        ("12%", "12", True),
        ("12", "12%", True),
        ("12%", "0.12", True),
        ("0.12", "12%", True),
        ("12%", "12 percent", True),
        ("12%", "0.12%", False),
        ("12%", "1.2", False),
        ("12 cm", "12 m", False),
        ("1200 cm", "12 m", True),
        ("12 dollars", "€12", False),
        ("12 cm", "12%", False),
        ("90 minutes", "1.5 hours", True),
    ],
)
def test_percent_and_units_are_decided_alike_everywhere(answer, truth, equal):
    for problem_type in ("numerical", "regression", "math"):
        task: dict[str, Any] = {"problem_type": problem_type, "data_type": "image"}
        score = score_response(f"<think>x</think><answer>{answer}</answer>", truth, **task)
        assert (score.accuracy == 1.0) == equal, problem_type


def test_units_convert_exactly():
    inch, centimetre = read_number("1 inch"), read_number("2.54 cm")
    assert inch is not None
    assert centimetre is not None
    assert readings(inch, centimetre) == [(Fraction(254, 100), Fraction(254, 100))]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_as_itself(value):
    assert number_value(repr(value)) == value


@given(st.text(max_size=50))
def test_any_text_is_read_or_refused(text):
    value = number_value(text)
    assert value is None or not math.isnan(value)
