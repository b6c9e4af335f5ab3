"""Corners of the released variant that its golden rows leave out, worked out by hand from its rules."""

import json
import math
from typing import Any

import pytest

from onethinker_jax.rewards import GroundTruthError, Score, score_response

POINTS = [[100, 100], [200, 200], [300, 300]]
SEGMENTATION = {"boxes": [0, 0, 100, 100], "positive_points": POINTS, "negative_points": POINTS, "time": 3}
SPATIO_TEMPORAL = {"time": [2, 4], "boxes": {"2": [0, 0, 100, 100], "3": [0, 0, 100, 100]}}


def released(answer, truth, problem_type, data_type="video") -> Score:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    truth = truth if isinstance(truth, str) else json.dumps(truth)
    response = f"<think>a dog runs</think><answer>{text}</answer>"
    return score_response(response, truth, problem_type=problem_type, data_type=data_type, variant="released")


def test_an_empty_answer_stands_for_the_whole_response():
    # With the tags' white space gone the words are "<think>a", "dog" and "runs</think><answer></answer>".
    assert released("", "a dog runs", "OCR").accuracy == pytest.approx(1 / 3)
    # think a dog runs think answer answer: 3 of 7 words, 2 of 6 pairs, a subsequence of 3, against 3 words
    wanted = (2 * 3 / 10 + 2 * 2 / 8 + 2 * 3 / 10) / 3
    assert released("", "a dog runs", "open-ended").accuracy == pytest.approx(wanted)
    assert released("", "a dog runs", "open-ended").structure == 0.5


def test_white_space_around_brackets_and_slashes_is_dropped():
    assert released("a / b", "a/b", "OCR").accuracy == 1.0
    assert released("a/b", "a / b", "OCR").accuracy == 0.0  # the truth is left as it is: three words
    response = "< think >x< / think >\n< answer > 7 < / answer >"
    score = score_response(response, "7", problem_type="numerical", data_type="image", variant="released")
    assert (score.accuracy, score.format, score.structure) == (1.0, 1.0, 0.5)


def test_a_malformed_box_at_a_shared_second_counts_zero_in_the_mean():
    answer = {"time": [2, 4], "boxes": {"2": [0, 0, 100, 100], "3": [0, 0, 100]}}
    score = released(answer, SPATIO_TEMPORAL, "spatial-temporal grounding")
    assert score.accuracy == pytest.approx(0.5 + 0.5 * (1 + 0) / 2)
    assert score.structure == pytest.approx(0.25)  # not the schema, yet both keys


def test_key_overlap_counts_without_the_schema():
    answer = {"boxes": {"2": [0, 0, 100, 100]}}
    score = released(answer, SPATIO_TEMPORAL, "spatial-temporal grounding")
    assert (score.accuracy, score.structure) == (pytest.approx(0.5), pytest.approx(0.125))
    score = released({"time": ["a", "b"], "boxes": {}}, SPATIO_TEMPORAL, "spatial-temporal grounding")
    assert (score.accuracy, score.structure) == (
        0.0,
        0.25,
    )  # two of anything are a time, no box is well formed
    assert released({"boxes": []}, {"boxes": {"1": [0, 0, 1, 1]}}, "tracking").structure == 0.0


@pytest.mark.parametrize("span", ["[NaN, 4]", "[2, Infinity]", '["2", true]', "[2, 1e999]"])
def test_what_float_takes_fits_the_schema(span):
    assert released(f'{{"time": {span}}}', {"time": [2, 4]}, "temporal grounding").structure == 0.5


@pytest.mark.parametrize(
    "span", ['["two", 4]', "[null, 4]", "[[2], 4]", "[2]", "[2, 3, 4]", "4", f"[1, {10**400}]"]
)
def test_what_float_does_not_take_does_not(span):
    score = released(f'{{"time": {span}}}', {"time": [2, 4]}, "temporal grounding")
    assert (score.accuracy, score.structure) == (0.0, 0.0)


def test_numbers_written_as_strings_count():
    assert released('{"time": ["2", " 4 "]}', {"time": [2, 4]}, "temporal grounding").accuracy == 1.0
    assert released('{"time": [true, 3]}', {"time": [1, 3]}, "temporal grounding").accuracy == 1.0


@pytest.mark.parametrize(
    ("change", "accuracy", "structure"),
    [
        ({}, 1.0, 0.5),
        ({"time": 5}, 0.7 + 0.3 * math.exp(-1), 0.5),
        ({"time": None}, 0.0, 0.0),
        ({"time": "3"}, 0.0, 0.0),
        ({"time": math.inf}, 0.7, 0.5),
        ({"time": math.nan}, 0.0, 0.5),
        ({"time": 10**400}, 0.0, 0.5),
        ({"boxes": None}, 0.7, 0.0),
        ({"positive_points": POINTS[:2]}, 0.0, 0.0),
        ({"positive_points": [*POINTS[:2], [math.nan, 1]]}, 0.8, 0.5),
        ({"positive_points": [*POINTS[:2], [math.inf, 1]]}, 0.8, 0.5),
        ({"negative_points": [*POINTS[:2], [1e200, 1]]}, 0.0, 0.5),  # its square is beyond float
        ({"negative_points": [*POINTS[:2], ["300", 300]]}, 1.0, 0.5),
        (
            {"negative_points": [[130, 140], [200, 200], [300, 300]]},
            0.8 + 0.2 * math.exp(-((50 / 3) ** 2) / 5000),
            0.5,
        ),
    ],
)
def test_segmentation_of_a_video(change, accuracy, structure):
    score = released(SEGMENTATION | change, SEGMENTATION, "segmentation")
    assert score.accuracy == pytest.approx(accuracy)
    assert score.structure == structure


def test_an_image_needs_no_key_time():
    assert released(SEGMENTATION | {"time": "soon"}, SEGMENTATION, "segmentation", "image").overall == 1.5


def test_tracking_counts_a_malformed_box_as_missing():
    truth = {"boxes": {"1": [0, 0, 100, 100], "2": [0, 0, 100, 100]}}
    score = released({"boxes": {"1": [0, 0, 100, 100], "02": [0, 0, 100, 100], "2": "x"}}, truth, "tracking")
    assert (score.accuracy, score.structure) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("answer", "truth", "accuracy"),
    [
        ("1,234.004", "1234", 1.0),
        ("1234.006", "1234", 0.0),
        (" 12.5 ", "12.50", 1.0),
        ("12.5%", "12.5", 0.0),
        ("12.5 cm", "12.5", 0.0),
        ("1_000", "1000", 1.0),
        ("1." + "0" * 600, "1", 1.0),
        ("inf", "1e400", 1.0),
        ("nan", "nan", 0.0),
    ],
)
def test_numerical(answer, truth, accuracy):
    assert released(answer, truth, "numerical").accuracy == accuracy


def test_regression_is_strict_at_its_thresholds_and_forgives_nothing_at_zero():
    assert released("150", "100", "regression").accuracy == 0.0  # an error of 0.5 is not below 1 - 0.5
    assert released("149.9", "100", "regression").accuracy == pytest.approx(0.1)
    assert released("0", "0", "regression").accuracy == 1.0
    assert released("1e400", "100", "regression").accuracy == 0.0
    assert released("-100", "100", "regression").accuracy == 0.0


def test_mathematics_is_found_in_a_long_response_without_tags():
    response = "so it goes on, and on. " * 100 + "The answer is $12$."
    task: dict[str, Any] = {"problem_type": "math", "data_type": "image", "variant": "released"}
    score = score_response(response, "$12$", **task)
    assert (score.accuracy, score.format, score.structure) == (1.0, 0.0, 0.0)
    assert score_response(response, "$13$", **task).accuracy == 0.0


def test_a_truth_that_is_no_json_object_raises():
    for truth in ("soon", "[1, 2]", ""):
        with pytest.raises(GroundTruthError, match="temporal grounding"):
            released({"time": [1, 2]}, truth, "temporal grounding")
