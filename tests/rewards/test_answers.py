"""Tags and JSON as policies write them."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onethinker_jax.rewards import answers

TAGS_AND_TEXT = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "x", "<", ">", "/"]),
    max_size=10,
).map("".join)


def test_parts_of_a_response():
    response = "<think> it moves </think>\n<answer> B </answer>"
    assert answers.extract_thinking(response) == "it moves"
    assert answers.extract_answer(response) == "B"
    assert answers.extract_answer("<answer>B") is None
    assert answers.extract_answer("</answer><answer>B</answer>") == "B"
    assert answers.extract_thinking("") is None
    assert answers.unwrap_answer(" <answer> 7 </answer>") == "7"
    assert answers.unwrap_answer(" 7 ") == "7"


@settings(deadline=None)
@given(TAGS_AND_TEXT)
def test_format_is_the_regular_expression(text):
    pattern = r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*"
    assert answers.has_format(text) == bool(re.fullmatch(pattern, text, re.DOTALL))
    assert answers.has_format(text) or not answers.has_strict_format(text)


@settings(deadline=None)
@given(TAGS_AND_TEXT)
def test_tightening_is_the_regular_expression(text):
    assert answers.tighten_tags(text) == re.sub(r"\s*(<|>|/)\s*", r"\1", text)


@pytest.mark.parametrize(
    ("problem_type", "data_type", "value", "field", "wanted"),
    [
        ("temporal grounding", "video", {"time": [1, 2.5]}, "span", (1.0, 2.5)),
        ("spatial grounding", "image", {"boxes": [1, 2, 3, 4]}, "box", (1.0, 2.0, 3.0, 4.0)),
        ("tracking", "video", {"boxes": {"1": [1, 2, 3, 4]}}, "boxes", {1: (1.0, 2.0, 3.0, 4.0)}),
        (
            "spatial-temporal grounding",
            "video",
            {"time": [0, 1], "boxes": {"0": [1, 2, 3, 4]}},
            "boxes",
            {0: (1.0, 2.0, 3.0, 4.0)},
        ),
        (
            "segmentation",
            "video",
            {
                "boxes": [0, 0, 9, 9],
                "positive_points": [[1, 1]] * 3,
                "negative_points": [[2, 2]] * 3,
                "time": 4,
            },
            "key_time",
            4.0,
        ),
    ],
)
def test_structured_answers(problem_type, data_type, value, field, wanted):
    parsed = answers.parse_structured(json.dumps(value), problem_type, data_type)
    assert getattr(parsed, field) == wanted


@pytest.mark.parametrize(
    ("problem_type", "text"),
    [
        ("tracking", '{"boxes": {}}'),
        ("tracking", '{"boxes": {"01": [1, 2, 3, 4]}}'),
        ("tracking", '{"boxes": {"-1": [1, 2, 3, 4]}}'),
        ("tracking", '{"boxes": {"1": [1, 2, 3]}}'),
        ("tracking", '{"boxes": {"99999999999": [1, 2, 3, 4]}}'),
        ("spatial grounding", '{"boxes": [1, 2, 3, 1e999]}'),
        ("spatial grounding", '{"boxes": [1, 2, 3, null]}'),
        ("spatial grounding", '{"boxes": [1, 2, 3, 4]} and so on'),
        ("temporal grounding", "[" * 50_000),
        ("temporal grounding", '{"time": [1, ' + "9" * 5_000 + "]}"),
        ("segmentation", '{"boxes": [1, 2, 3, 4]}'),
        ("math", '{"boxes": [1, 2, 3, 4]}'),
    ],
)
def test_what_does_not_fit_the_schema_is_none(problem_type, text):
    assert answers.parse_structured(text, problem_type, "video") is None
    assert answers.parse_structured(None, problem_type, "video") is None
