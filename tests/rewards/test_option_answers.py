"""Which option an answer names: paper variant, with and without the options' texts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onethinker_jax.rewards import score_response
from onethinker_jax.rewards.option_answers import option_letter, option_letters, options_equivalent

LETTERED = ("(A) dog", "(B) Go", "(C) Stop", "(D) Vitamin C")
PLAIN = ("dog", "Go", "Stop", "a cat")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "B",
            "b",
            "(B)",
            "(b)",
            "B.",
            "B)",
            "[B]",
            "{B}",
            '"B"',
            "`B`",
            "<B>",
            " B ",
            "B\n",
            "b) go",
            "*B*",
            "__B__",
        ),
        *(
            "**B**",
            "\\boxed{B}",
            "$B$",
            "\\text{B}",
            "\\textbf{B}",
            "\\mathrm{B}",
            "$\\boxed{\\text{B}}$",
            "\\textbf{(B)}",
        ),
        *("（B）", "Ｂ", "（Ｂ） Go", "Ｂ．Ｇｏ", "Ｂ：Go", "【B】", "答案是B", "答案：B", "选B"),
        *(
            "The answer is B",
            "The answer is B.",
            "The correct answer is (B).",
            "Answer: B",
            "answer B",
            "Answer\nB",
        ),
        *(
            "Final answer: **B**",
            "So the answer is B.",
            "Therefore, the correct answer is B.",
            "I choose B",
            "It's B",
        ),
        *(
            "I think the answer is B",
            "Option B",
            "option b",
            "Choice B",
            "The answer is option B",
            "the option is B",
        ),
        *(
            "B Go",
            "(B) Go",
            "B: Go",
            "B. Go",
            "B) Go",
            "B.Go",
            "B)Go",
            "B - Go",
            "B (Go)",
            "B, Go",
            "**B. Go**",
            "**B**. Go",
        ),
        *(
            "B is correct",
            "B is the correct answer",
            "B because A is wrong",
            "B\nBecause it goes",
            "(B) Go, since it goes",
        ),
        *("The answer is \\boxed{B}.", "the dog goes, so \\boxed{B}", "The answer is (B) Go"),
    ],
)
def test_one_letter(answer):
    assert option_letter(answer) == "B"
    assert option_letter(answer, LETTERED) == "B"
    assert option_letter(answer, PLAIN) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "Because",
            "A dog runs",
            "A dog runs away",
            "I think",
            "Bob",
            "B-flat",
            "C++",
            "",
            "x y",
            "A lot of dogs",
        ),
        *(
            "A and B",
            "A or B",
            "A, B",
            "A/B",
            "AB",
            "B C",
            "A B",
            "A.B",
            "A & B",
            "A+B",
            "A; B",
            "(A)(B)",
            "(A) or (B)",
        ),
        *(
            "not B",
            "The answer is not B",
            "B is wrong",
            "B is not correct",
            "Not sure, B",
            "neither A nor B",
            "both A and B",
        ),
        *(
            "B, C and D",
            "B or maybe C",
            "Either A or B",
            "Option A or option B",
            "All of A, B and C",
            "A\nB",
            "B、C",
            "B. C.",
        ),
        *(
            "B Go or C Stop",
            "None of the above",
            "The answer is a dog that runs",
            "The answer is A dog that runs",
            "B?",
        ),
    ],
)
def test_no_letter_or_several(answer):
    assert option_letter(answer) is None
    assert option_letter(answer, ("one", "two", "three", "four")) is None


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("Go", LETTERED, "B"),
        ("go.", PLAIN, "B"),
        ("**Go**", PLAIN, "B"),
        ("\\text{Go}", PLAIN, "B"),
        ("The answer is Go.", PLAIN, "B"),
        ("dog", LETTERED, "A"),
        ("A dog", LETTERED, "A"),
        ("A dog", PLAIN, "A"),
        ("A cat", PLAIN, "D"),
        ("a cat", PLAIN, "D"),
        ("Vitamin C", LETTERED, "D"),
        ("(D) Vitamin C", LETTERED, "D"),
        ("D Vitamin C", LETTERED, "D"),
        ("(B) Stop", LETTERED, None),  # the letter of one, the text of another
        ("B Stop", LETTERED, None),
        ("a stop", PLAIN, None),
        ("E", LETTERED, None),
        ("same", ("same", "Same."), None),
        ("C major", ("C major", "D minor"), "A"),
        ("12", ("12", "13"), "A"),
        ("$12$", ("A. 12", "B. 13"), "A"),
        ("C", ("B. x", "C. y"), "C"),
        ("A", ("B. x", "C. y"), None),
        ("y", ("B. x", "C. y"), "C"),
    ],
)
def test_the_options_own_texts(answer, options, letter):
    assert option_letter(answer, options) == letter


def test_an_article_is_no_letter_without_the_options():
    assert option_letter("A dog") is None
    assert option_letter("A") == "A"
    assert option_letter("A. dog") == option_letter("A) a dog") == option_letter("A: a dog") == "A"
    assert option_letter("A because it runs") == "A"


def test_letters_of_the_options():
    assert option_letters(LETTERED) == option_letters(PLAIN) == "ABCD"
    assert option_letters(["(B) x", "(C) y"]) == "BC"


def test_a_truth_without_a_letter_is_compared_as_text():
    assert options_equivalent("a dog", "A dog.")
    assert not options_equivalent("a cat", "A dog.")
    assert options_equivalent("A", "dog", PLAIN)


def test_the_score_knows_the_options():
    response = "<think>x</think><answer>Stop</answer>"
    task: dict[str, Any] = {"problem_type": "multiple choice", "data_type": "image"}
    assert score_response(response, "C", **task, options=LETTERED).accuracy == 1.0
    assert score_response(response, "B", **task, options=LETTERED).accuracy == 0.0
    assert score_response(response, "C", **task).accuracy == 0.0
    released = score_response(response, "C", **task, variant="released", options=LETTERED)
    assert released.accuracy == 0.0  # the published code does not know them


@given(
    st.sampled_from("ABCD"),
    st.sampled_from("ABCD"),
    st.sampled_from([" and ", " or ", ", ", "/", " & ", "\n", ") ("]),
)
def test_two_letters_are_none(one, other, joined):
    if one != other:
        assert option_letter(one + joined + other) is None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_no_letter_comes_out_of_a_word(rest):
    assert option_letter("B" + rest) is None
