"""Accuracy by problem type in both forms, and how options are read."""

import pytest

from onethinker_jax.evaluate.metrics.accuracy import mean_relative_accuracy, read
from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.options import choices, first_letter, matched_letter
from tests.evaluate.metrics.problems import answer, sample

OPTIONS = ["A. a red car", "B. two dogs", "C. the sea", "D. nothing"]


@pytest.mark.parametrize(
    ("response", "released", "standard"),
    [
        ("<answer>B</answer>", "B", "B"),
        ("<answer> b. two dogs</answer>", "B", "B"),  # by its text: a small b is no option's letter
        ("<answer>b</answer>", "B", None),
        ("<answer>(B)</answer>", None, "B"),
        ("<answer>Both A and B</answer>", "B", None),
        ("<answer>two dogs</answer>", "T", "B"),
        ("<answer>It must be option B.</answer>", "I", "B"),
        ("<answer>B because the others are plainly not there</answer>", "B", None),
        ("<answer>\\boxed{B}</answer>", None, "B"),
        ("<answer>B</answer><answer>C</answer>", "B", "B"),
        ("The answer is B", "T", "B"),
        ("<think>A</think>\nB", None, "B"),
        ("<answer></answer>", None, None),
        ("<answer>Cannot determine the answer: B</answer>", "C", None),
        ("<answer>E</answer>", "E", None),
        ("", None, None),
    ],
)
def test_options(response: str, released: str | None, standard: str | None) -> None:
    found = read(Answer(sample("multiple choice", "<answer>B</answer>", options=OPTIONS), response))
    assert (found.released.answer, found.standard.answer) == (released, standard)
    assert found.released.accuracy == (released == "B")
    assert found.standard.accuracy == (standard == "B")


@pytest.mark.parametrize(
    ("response", "released", "standard"),
    [
        ("<answer>B</answer>", "B", "B"),
        ("<answer>A</answer> no <answer> b. two </answer>", "B", None),
        ("<answer>C: not A </answer>", "C", "C"),
        ("<answer>Option [D</answer>", "D", "D"),
        ("<answer>I say A then B</answer>", "B", "A"),
        ("<answer>DA</answer>", None, "A"),
        ("It is E", "E", None),
        ("<answer>A<answer>C</answer>", "C", "A"),
        ("<answer>A</answer><answer>B", "A", "A"),
        ("<answer>" * 30_000, None, None),
        ("<answer>???</answer>", None, None),
        ("", None, None),
    ],
)
def test_options_of_video_holmes(response: str, released: str | None, standard: str | None) -> None:
    one = Answer(sample("multiple choice", "B", options=OPTIONS), response, option_rule="video-holmes")
    found = read(one)
    assert (found.released.answer, found.standard.answer) == (released, standard)


@pytest.mark.parametrize(
    ("text", "letter"),
    [("The correct answer is C.", "C"), ("Best option: (D)", "D"), ("maybe E", "E"), ("b", None), ("", None)],
)
def test_options_of_longvideobench(text: str, letter: str | None) -> None:
    one = Answer(sample("multiple choice", "B", options=OPTIONS), text, option_rule="longvideobench")
    assert read(one).released.answer == read(one).standard.answer == letter


def test_options_without_letters_of_their_own() -> None:
    assert choices(["red", "blue"]) == {"A": "red", "B": "blue"}
    assert choices(["(A) red", "(B) blue"]) == {"A": "red", "B": "blue"}
    assert matched_letter("blue", choices(["red", "blue"])) == "B"
    assert matched_letter("C", choices([])) == "C"
    assert first_letter("é") is None


@pytest.mark.parametrize(
    ("problem_type", "truth", "given", "accuracy"),
    [
        ("numerical", "1,234.567", "1234.57", 1.0),
        ("numerical", "3.14", "3.144", 1.0),
        ("numerical", "3.14", "3.146", 0.0),
        ("numerical", "3.14", "about 3.14", 0.0),
        ("numerical", "3", "nan", 0.0),
        ("regression", "10", "9", 0.8),  # 0.1 is not below 1 - 0.9 as computers have it
        ("regression", "10", "10", 1.0),
        ("regression", "10", "5", 0.0),
        ("regression", "0", "0", 0.0),
        ("OCR", "hello big world", "hello world", 2 / 3),
        ("OCR", "Hello", "hello", 0.0),
        ("math", "\\frac{1}{2}", "0.5", 1.0),
        ("math", "2", "3", 0.0),
        ("open-ended", "two cats sleep", "two cats sleep", 1.0),
        ("open-ended", "two cats sleep", "fish", 0.0),
    ],
)
def test_other_text_tasks(problem_type: str, truth: str, given: str, accuracy: float) -> None:
    found = read(answer(problem_type, f"<answer>{truth}</answer>", given))
    assert found.released == found.standard
    assert found.released.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("problem_type", "truth", "given", "released", "standard"),
    [
        ("math", "C", "C", 0.0, 1.0),  # math-verify finds no mathematics in a letter
        ("math", "C", "B", 0.0, 0.0),
        ("math", "a fresco", "A fresco.", 0.0, 1.0),
        ("numerical", "12", "twelve", 0.0, 1.0),
        ("numerical", "12", "thirteen", 0.0, 0.0),
    ],
)
def test_standard_accepts_what_is_equivalent_to_an_accepted_answer(
    problem_type: str, truth: str, given: str, released: float, standard: float
) -> None:
    facts = {"answers": [truth, "twelve"]} if problem_type == "numerical" else {}
    found = read(answer(problem_type, f"<answer>{truth}</answer>", given, facts=facts))
    assert (found.released.accuracy, found.standard.accuracy) == (released, standard)


def test_mean_relative_accuracy() -> None:
    assert mean_relative_accuracy(6.9, 10.0) == pytest.approx(0.4)  # below 0.5, 0.45, 0.4, 0.35
    assert mean_relative_accuracy(-10.0, -10.0) == 1.0
    assert mean_relative_accuracy(1e300, 1e-300) == 0.0
