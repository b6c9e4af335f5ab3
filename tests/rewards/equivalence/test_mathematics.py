"""The paper variant's mathematics: a table of pairs both ways, properties, and limits."""

import csv
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onethinker_jax.rewards import score_response
from onethinker_jax.rewards.equivalence.equivalence import math_equivalent, shared_grader
from onethinker_jax.rewards.equivalence.mathematics import equivalent
from onethinker_jax.rewards.equivalence.quantities import number_error, read_number
from onethinker_jax.rewards.option_answers import option_letter
from tests.places import GOLDEN

TABLE = GOLDEN / "mathematics.tsv"


def pairs():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("kind", sorted({row["kind"] for row in pairs()}))
def test_the_table_of_pairs_both_ways_round(kind):
    wrong = [
        (row["answer"], row["truth"], row["equal"])
        for row in pairs()
        if row["kind"] == kind
        for verdict in (
            math_equivalent(row["answer"], row["truth"]),
            math_equivalent(row["truth"], row["answer"]),
        )
        if verdict != (row["equal"] == "yes")
    ]
    assert not wrong


def test_the_table_holds_enough_of_both():
    counts = Counter(row["equal"] for row in pairs())
    assert counts.total() >= 250
    assert min(counts["yes"], counts["no"]) >= 100
    assert set(counts) == {"yes", "no"}
    verdicts = {row[judge] for row in pairs() for judge in ("math_verify", "mathruler")}
    assert verdicts <= {"yes", "no", "error"}


def test_no_pair_of_the_table_runs_out_of_time():
    ended = shared_grader().ended
    for row in pairs():
        math_equivalent(row["answer"], row["truth"])
    assert shared_grader().ended == ended


def test_a_whole_response_is_scored_by_the_table():
    for answer, truth, accuracy in (("**2½**", "\\frac{5}{2}", 1.0), ("5 or 6", "5", 0.0)):
        response = f"<think>so</think><answer>{answer}</answer>"
        score = score_response(response, truth, problem_type="math", data_type="image")
        assert (score.accuracy, score.format) == (accuracy, 1.0)


def test_one_part_without_end_ends_the_comparison():
    asked = []

    def never(truth, answer, tolerance):
        asked.append((truth, answer, tolerance))

    endless = ", ".join(f"9^{{9^{{9^{{{number}}}}}}}" for number in range(2, 10))
    assert not equivalent(endless, endless.replace("9^{9", "8^{9"), never)
    assert len(asked) == 1


NUMBER = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-1000, 1000, places=3, allow_nan=False).map(str),
    st.tuples(st.integers(-50, 50), st.integers(2, 50)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
)
MARKS = st.sampled_from(
    [
        "{}",
        "${}$",
        "**{}**",
        "\\boxed{{{}}}",
        "\\({}\\)",
        "The answer is {}.",
        " {} ",
        "({})",
        "`{}`",
        "x = {}",
        "\\text{{{}}}",
    ]
)


@given(NUMBER, MARKS)
@settings(max_examples=150, deadline=None)
def test_marks_change_no_number(number, mark):
    assert math_equivalent(mark.format(number), number)
    assert math_equivalent(number, mark.format(number))


@given(NUMBER, NUMBER)
@settings(max_examples=150, deadline=None)
def test_numbers_are_equal_both_ways_or_neither(one, other):
    assert math_equivalent(one, one)
    assert math_equivalent(one, other) == math_equivalent(other, one)


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6), st.integers(-300, 300))
@settings(max_examples=100, deadline=None)
def test_whole_numbers_differ_however_large_or_small(value, more, power):
    assert not math_equivalent(f"{value}e{power}", f"{value + more}e{power}")
    assert math_equivalent(f"{value}e{power}", f"{value}\\times 10^{{{power}}}")


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=8, unique=True), st.randoms())
@settings(max_examples=100, deadline=None)
def test_order_counts_in_tuples_alone(values, draw):
    turned = draw.sample(values, len(values))
    one, other = (", ".join(map(str, order)) for order in (values, turned))
    assert math_equivalent(f"{{{one}}}", f"\\{{{other}\\}}")
    assert math_equivalent(one, other)
    assert math_equivalent(f"({one})", f"({other})") == (values == turned)
    assert not math_equivalent(f"({one})", f"{{{one}}}")
    assert not math_equivalent(f"({one})", f"[{one}]")


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_equals_itself_alone(text):
    """Itself, as far as there is something in it; never a number that it does not hold."""
    assert not math_equivalent(text, "987654321.5")
    assert not math_equivalent("987654321.5", text)


PIECES = (
    *"*_a1($=<°'|.-/^²½√,{}[]()&",
    *(
        "\\a",
        "\\frac{",
        "\\text{",
        " and ",
        "\\pm",
        "1,",
        "1,000,",
        "\\boxed{",
        "\\times10^",
        "x+y,",
        "12%,",
        "3 ",
    ),
    *("the answer is ", "option ", "A,", "(A)", "or ", "5 cm", "e5"),
)


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_no_text_of_a_thousand_characters_takes_long_to_read(pieces):
    text = ("".join(pieces) * 1_000)[:1_000]
    for problem_type, truth in (("math", "\\frac{1}{2}"), ("multiple choice", "B"), ("numerical", "7")):
        start = time.thread_time()
        response = f"<think>so</think><answer>{text}</answer>"
        score_response(
            response, truth, problem_type=problem_type, data_type="image", options=("dog", "A cat")
        )
        assert time.thread_time() - start < 0.5


@given(
    st.lists(st.sampled_from((*PIECES, "()", "{}", "x", "2", "≤", "\n")), min_size=1, max_size=9).map("".join)
)
@settings(max_examples=300, deadline=None)
def test_no_text_raises(text):
    def unequal(truth, answer, tolerance):
        return False

    for truth in ("\\frac{1}{2}", "{1,2}", "x > 2", text[::-1] or "1"):
        assert equivalent(text, truth, unequal) in (True, False)
    assert option_letter(text, ("dog", "A cat")) in (None, "A", "B")
    assert number_error(text, "numerical") is None or read_number(text) is None


def test_an_empty_power_is_not_equal():
    assert not math_equivalent("x^()", "x")
