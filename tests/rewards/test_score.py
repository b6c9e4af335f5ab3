"""The paper variant against values worked out by hand, and what both variants make of bad input."""

import json
import math
import random
import string
import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onethinker_jax.rewards import (
    GroundTruthError,
    RewardSettings,
    Score,
    max_accuracy,
    max_overall,
    score_response,
)
from onethinker_jax.rewards.score import judged_text, mask_prompt
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE
from tests.waiting import HANG_S, is_quick

POINTS = [[100, 100], [200, 200], [300, 300]]
OTHER_POINTS = [[10, 10], [20, 20], [30, 30]]
SEGMENTATION = {"boxes": [0, 0, 100, 100], "positive_points": POINTS, "negative_points": OTHER_POINTS}
TRUTHS = {
    "multiple choice": "B",
    "numerical": "12.5",
    "regression": "100",
    "OCR": "one two three four",
    "math": "$\\frac{1}{2}$",
    "open-ended": "a red circle moves to the left",
    "temporal grounding": {"time": [2.0, 6.0]},
    "spatial grounding": {"boxes": [0, 0, 100, 100]},
    "spatial-temporal grounding": {
        "time": [2.0, 6.0],
        "boxes": {str(second): [0, 0, 100, 100] for second in (2, 3, 4, 5)},
    },
    "tracking": {"boxes": {"1": [0, 0, 100, 100], "2": [0, 0, 100, 100]}},
    "segmentation": {**SEGMENTATION, "time": 3.0},
}


def text_of(value):
    return value if isinstance(value, str) else json.dumps(value)


def respond(answer):
    return f"<think>because</think>\n<answer>{text_of(answer)}</answer>"


def paper(answer, problem_type, data_type="video", truth=None, **options) -> Score:
    truth = f"<answer>{text_of(TRUTHS[problem_type] if truth is None else truth)}</answer>"
    return score_response(
        respond(answer), truth, problem_type=problem_type, data_type=data_type, variant="paper", **options
    )


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("data_type", ["image", "video"])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_truth_itself_earns_the_maximum(problem_type, data_type, variant):
    truth = text_of(TRUTHS[problem_type])
    task: dict[str, Any] = {"problem_type": problem_type, "data_type": data_type, "variant": variant}
    score = score_response(respond(truth), f"<answer>{truth}</answer>", **task)
    if variant == "released" and not TABLE[problem_type].published:
        assert score == Score(
            0.6, 0.0, 1.0, 0.5
        )  # what the published code gives a task that it does not know
        return
    assert score.overall == pytest.approx(max_overall(problem_type, data_type, variant))
    assert score.accuracy == pytest.approx(max_accuracy(problem_type, data_type, variant))
    assert score.format == 1.0
    assert score_response("", truth, **task) == Score(0.0, 0.0, 0.0, 0.0)


def test_maxima_of_the_paper():
    assert max_overall("spatial-temporal grounding", "video") == 3.0
    assert max_overall("segmentation", "image") == 4.0
    assert max_overall("segmentation", "video") == 5.0
    assert max_overall("math", "image") == 2.0
    assert max_overall("math", "image", settings=RewardSettings(format_weight=0.25)) == 1.25
    assert max_overall("segmentation", "video", "released") == 1.5


def test_every_term_has_its_weight():
    settings = RewardSettings(
        format_weight=0.5, time_weight=2.0, box_weight=3.0, point_weight=5.0, key_time_weight=7.0
    )
    assert max_overall("spatial-temporal grounding", "video", settings=settings) == 2 + 3 + 0.5
    assert max_accuracy("segmentation", "image", settings=settings) == 3 + 5 + 5
    assert max_accuracy("segmentation", "video", settings=settings) == 3 + 5 + 5 + 7
    assert max_accuracy("segmentation", "video", "released", settings) == 1.0
    answer = {"time": [2.0, 4.0], "boxes": {"2": [0, 0, 100, 100], "3": [0, 0, 50, 100]}}
    score = paper(answer, "spatial-temporal grounding", settings=settings)
    assert score.accuracy == pytest.approx(2 * 2 / 4 + 3 * 1.5 / 4)
    assert score.overall == pytest.approx(score.accuracy + 0.5)
    answer = SEGMENTATION | {"boxes": [0, 0, 100, 50], "time": 4.0}
    answer |= {"positive_points": [[100, 160], [200, 200], [300, 300]]}  # distances 60, 0, 0
    wide = RewardSettings(
        box_weight=3.0, point_weight=5.0, key_time_weight=7.0, point_sigma=20.0, key_time_sigma=2.0
    )
    wanted = 3 * 0.5 + 5 * math.exp(-0.5) + 5 + 7 * math.exp(-1 / 8)
    assert paper(answer, "segmentation", settings=wide).accuracy == pytest.approx(wanted)


def test_temporal_is_the_spans_overlap():
    assert paper({"time": [4.0, 8.0]}, "temporal grounding").accuracy == pytest.approx(2 / 6)
    assert paper({"time": [7.0, 9.0]}, "temporal grounding").accuracy == 0.0
    assert paper({"time": [6.0, 2.0]}, "temporal grounding").accuracy == 0.0


def test_spatial_is_the_boxes_overlap():
    score = paper({"boxes": [50, 0, 150, 100]}, "spatial grounding", "image")
    assert score.accuracy == pytest.approx(1 / 3)
    assert score.overall == score.accuracy + 1.0


def test_tracking_counts_missing_frames_as_zero():
    assert paper({"boxes": {"1": [0, 0, 100, 50]}}, "tracking").accuracy == pytest.approx(0.5 / 2)
    extra = {"boxes": {"1": [0, 0, 100, 50], "9": [0, 0, 100, 100]}}
    assert paper(extra, "tracking").accuracy == pytest.approx(0.5 / 2)


def test_spatio_temporal_is_a_sum_over_the_true_seconds():
    answer = {"time": [2.0, 4.0], "boxes": {"2": [0, 0, 100, 100], "3": [0, 0, 50, 100]}}
    assert paper(answer, "spatial-temporal grounding").accuracy == pytest.approx(2 / 4 + (1 + 0.5) / 4)


def test_answering_few_seconds_pays_only_in_the_released_variant():
    """The released code averages over the seconds both have: the one sure second is worth them all."""
    problem = "spatial-temporal grounding"
    boxes = {str(second): [0, 0, 100, 80] for second in (2, 3, 4, 5)}
    honest = respond({"time": [2, 6], "boxes": boxes | {"2": [0, 0, 100, 100]}})
    gamed = respond({"time": [2, 6], "boxes": {"2": [0, 0, 100, 100]}})
    truth = text_of(TRUTHS[problem])
    task: dict[str, Any] = {"problem_type": problem, "data_type": "video"}
    released = [score_response(r, truth, variant="released", **task).accuracy for r in (honest, gamed)]
    ours = [score_response(r, truth, variant="paper", **task).accuracy for r in (honest, gamed)]
    assert released == pytest.approx([0.5 + 0.5 * (1 + 3 * 0.8) / 4, 1.0])
    assert ours == pytest.approx([1 + (1 + 3 * 0.8) / 4, 1 + 1 / 4])


def test_few_frames_do_not_pay_in_tracking_in_either_variant():
    """One perfect frame of two is worth half, and less than two frames that are 80% right."""
    truth = text_of(TRUTHS["tracking"])
    sure = respond({"boxes": {"1": [0, 0, 100, 100]}})
    honest = respond({"boxes": {"1": [0, 0, 100, 80], "2": [0, 0, 100, 80]}})
    for variant in ("paper", "released"):
        task: dict[str, Any] = {"problem_type": "tracking", "data_type": "video", "variant": variant}
        assert score_response(sure, truth, **task).accuracy == pytest.approx(0.5)
        assert score_response(honest, truth, **task).accuracy == pytest.approx(0.8)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_segmentation_by_its_mask(variant):
    settings = RewardSettings(segmentation_reward="mask")
    task: dict[str, Any] = {"problem_type": "segmentation", "data_type": "image", "variant": variant}
    good, truth = respond(SEGMENTATION), text_of(SEGMENTATION)
    score = score_response(good, truth, mask_score=0.75, settings=settings, **task)
    assert score.accuracy == 0.75
    assert score.overall == pytest.approx(0.75 + 1 if variant == "paper" else 0.9 * 0.75 + 0.1 + 0.5)
    assert max_accuracy("segmentation", "image", variant, settings) == 1.0
    malformed = respond({"boxes": [0, 0, 100, 100]})
    assert score_response(malformed, truth, settings=settings, **task).accuracy == 0.0
    with pytest.raises(ValueError, match="a mask_score is needed"):
        score_response(good, truth, settings=settings, **task)
    with pytest.raises(ValueError, match="mask_score is NaN"):
        score_response(good, truth, mask_score=math.nan, settings=settings, **task)
    prompt = mask_prompt(good, "segmentation", "image", variant)
    assert prompt is not None
    assert prompt.box == (0, 0, 100, 100)
    assert mask_prompt(malformed, "segmentation", "image", variant) is None
    assert score_response(good, truth, mask_score=0.75, **task).accuracy == max_accuracy(
        "segmentation", "image", variant
    )


def test_what_a_judge_is_shown():
    assert judged_text("<think>x</think><answer> a dog </answer>", "paper") == "a dog"
    assert judged_text("a dog", "paper") is None  # no answer, no accuracy
    assert judged_text("a dog", "released") == "a dog"
    assert judged_text("< answer >a dog</ answer >", "released") == "a dog"
    assert judged_text("<answer></answer>", "paper") is None
    assert judged_text("x" * 1_000_000, "released") is None


def test_segmentation_of_an_image():
    answer = {
        "boxes": [0, 0, 100, 50],
        "positive_points": [[300, 300], [100, 130], [200, 200]],  # another order: distances 0, 30, 0
        "negative_points": [[10, 10], [20, 80], [30, 30]],  # distances 0, 60, 0
    }
    wanted = 0.5 + math.exp(-(10**2) / (2 * 50**2)) + math.exp(-(20**2) / (2 * 50**2))
    assert paper(answer, "segmentation", "image").accuracy == pytest.approx(wanted)


def test_segmentation_of_a_video_adds_the_key_time():
    answer = {**SEGMENTATION, "time": 4.5}
    assert paper(answer, "segmentation", "video").accuracy == pytest.approx(3 + math.exp(-(1.5**2) / 2))
    assert paper(SEGMENTATION, "segmentation", "video") == Score(0.0, 0.0, 0.0, 0.0)  # no time
    few = {**answer, "positive_points": POINTS[:2]}
    assert paper(few, "segmentation", "video").overall == 0.0


def test_regression_is_mean_relative_accuracy():
    assert paper("120", "regression").accuracy == pytest.approx(0.6)  # 0.2 < 0.5, 0.45 … 0.25
    assert paper("104", "regression").accuracy == pytest.approx(1.0)  # 0.04 < 0.05
    assert paper("1,000", "regression").accuracy == 0.0
    assert paper("about 100", "regression").accuracy == 1.0
    assert paper("100 or 200", "regression").accuracy == 0.0


def test_reading_text_is_one_minus_word_error_rate():
    assert paper("one two tree four", "OCR").accuracy == pytest.approx(0.75)
    assert paper("one two three four five six", "OCR").accuracy == pytest.approx(0.5)
    assert paper("no words of it at all here now", "OCR").accuracy == 0.0


def test_open_ended_is_rouge_unless_the_service_scored_it():
    # words a red | circle | moves: 3 of 4 predicted, 3 of 7 true; pairs 1 of 3 and 6; subsequence 3
    r1 = rl = 2 * 3 / (4 + 7)
    r2 = 2 * 1 / (3 + 6)
    score = paper("a red square moved", "open-ended", "image")
    assert score.accuracy == pytest.approx((r1 + r2 + rl) / 3)
    assert paper("nothing alike", "open-ended", text_score=0.75).accuracy == 0.75
    assert paper("nothing alike", "open-ended", text_score=7.0).accuracy == 1.0
    assert paper("7", "numerical", text_score=0.75).accuracy == 0.0


@pytest.mark.parametrize(
    ("problem_type", "truth", "right", "wrong"),
    [
        (
            "multiple choice",
            "B",
            ["B", "b", "(B)", "B.", "B) the dog", " B ", "Answer: B"],
            ["A", "", "AB", "dog"],
        ),
        (
            "numerical",
            "12.5",
            ["12.5", "12.50", "12.503", " 12.5"],
            ["12.51", "13", "-12.5", "inf", "nan", "x"],
        ),
        ("numerical", "1234", ["1,234", "1234.0", "1234.004"], ["1234.006", "1.234"]),
        ("numerical", "0.001", ["0.001", "1e-3"], ["0.004", "0"]),
        ("numerical", "1/3", ["1/3", "2/6"], ["0.34"]),
        ("math", "$\\frac{1}{2}$", ["1/2", "0.5", "\\frac{2}{4}", "$0.5$"], ["2", "1/3", "half", ""]),
        ("math", "x^2+2x+1", ["(x+1)^2", "x^2 + 2x + 1"], ["(x+1)", "x^2"]),
        ("math", "(1,2)", ["(1, 2)"], ["(2, 1)", "1"]),
        ("math", "10\\%", ["0.1", "10\\%"], ["10.5"]),
        ("math", "12", ["12", "12.0", "+12", "12."], ["13", "twelve"]),
        ("math", "0.5", [".5", "1/2"], ["5"]),
    ],
)
def test_equivalence_of_short_answers(problem_type, truth, right, wrong):
    for answer in right:
        assert paper(answer, problem_type, truth=truth).accuracy == 1.0, answer
    for answer in wrong:
        assert paper(answer, problem_type, truth=truth).accuracy == 0.0, answer


def test_format_needs_tags_and_schema():
    good = json.dumps({"time": [2.0, 6.0]})
    task: dict[str, Any] = {"problem_type": "temporal grounding", "data_type": "video"}

    def score(response):
        return score_response(response, good, **task)

    assert score(f"<think>x</think><answer>{good}</answer>") == Score(2.0, 1.0, 1.0, 1.0)
    assert score(f" <think>\nx\n</think> \n <answer> {good} </answer> ").format == 1.0
    assert score(f"<answer>{good}</answer>") == Score(1.0, 1.0, 0.0, 1.0)
    assert score(f"so <think>x</think><answer>{good}</answer>").format == 0.0
    assert score(f"<think>x</think><answer>{good}</answer><answer>{good}</answer>").format == 0.0
    assert score(good) == Score(0.0, 0.0, 0.0, 0.0)
    for bad in (
        '{"time": [2.0]}',
        '{"time": [2.0, NaN]}',
        '{"time": ["2", 6]}',
        '{"time": [true, 6]}',
        "[2, 6]",
    ):
        assert score(respond(bad)) == Score(0.0, 0.0, 0.0, 0.0), bad


def test_bad_records_and_settings_raise():
    with pytest.raises(GroundTruthError, match="temporal grounding"):
        score_response(respond("x"), "soon", problem_type="temporal grounding", data_type="video")
    with pytest.raises(GroundTruthError, match="regression"):
        score_response(respond("1"), "many", problem_type="regression", data_type="video")
    with pytest.raises(ValueError, match="unknown problem_type 'riddle'"):
        score_response("x", "x", problem_type="riddle", data_type="image")
    with pytest.raises(ValueError, match="variant"):
        score_response("x", "x", problem_type="math", data_type="image", variant="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        paper("x", "open-ended", text_score=float("nan"))
    bad_settings: list[tuple[str, Any]] = [
        ("format_weight", -1.0),
        ("point_weight", math.inf),
        ("point_sigma", 0.0),
        ("segmentation_reward", "box"),
    ]
    for name, bad in bad_settings:
        with pytest.raises(ValueError, match=name):
            RewardSettings(**{name: bad})


NUMBER = st.one_of(
    st.integers(),
    st.floats(allow_nan=True),
    st.sampled_from([10**400, -(10**30), 1e308, -1e200, 5e-324, True, None, "7", "x", "nan"]),
)
JSON_VALUE = st.recursive(
    NUMBER | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["1", "02", "9.0", "time", "é"]), inner)
    ),
    max_leaves=12,
)
STRUCTURED = st.fixed_dictionaries(
    {},
    optional={
        "time": NUMBER | st.lists(NUMBER, max_size=3) | JSON_VALUE,
        "boxes": st.lists(NUMBER, max_size=5)
        | st.dictionaries(st.sampled_from(["1", "2", "3", "4", "5", "x"]), st.lists(NUMBER, max_size=5))
        | JSON_VALUE,
        "positive_points": st.lists(st.lists(NUMBER, max_size=3), max_size=4) | JSON_VALUE,
        "negative_points": st.lists(st.lists(NUMBER, max_size=3), max_size=4) | JSON_VALUE,
    },
)
PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        " ",
        "\n",
        "A",
        "12",
        "{",
        "}",
        "[",
        '"',
        "\ud800",
        "图",
        "/",
    ]
)
ANSWER = st.one_of(
    st.text(max_size=60),
    STRUCTURED.map(json.dumps),
    st.just('{"time": [1, 2], "time": [3, 4], "boxes": {"1": [0,0,1,1], "1": [0,0,9,9]}}'),
    st.sampled_from(
        [
            '{"time": [NaN, Infinity]}',
            '{"time": [1e400, -1e400], "boxes": [1e400, 0, 1, NaN]}',
            '{"time": ' + "9" * 5_000 + "}",
            '{"boxes": [' + "1" * 4_300 + ", 1, 2, 3]}",
            "[" * 100_000,
            '{"boxes":' * 5_000,
            '{"boxes": {"1": ' * 5_000,
            "9" * 100_000,
            "1e400",
            "NaN",
            "x" * 1_000_000,
            "图像" * 30_000,
        ]
    ),
    NUMBER.map(str),
)
TAGGED = ANSWER.map(lambda answer: f"<think>t</think><answer>{answer}</answer>")
RESPONSE = st.one_of(
    TAGGED,
    ANSWER,
    TAGGED.map(lambda inner: f"<think>{inner}</think><answer>{inner}</answer>"),  # nested
    st.lists(TAGGED, min_size=2, max_size=3).map("".join),  # repeated
    st.lists(PIECES, max_size=14).map("".join),
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(
    response=RESPONSE,
    problem_type=st.sampled_from(PROBLEM_TYPES),
    data_type=st.sampled_from(["image", "video"]),
)
def test_any_response_scores_within_bounds_and_in_time(response, problem_type, data_type):
    """50 ms of this process: mathematics is another's, with a limit of its own."""
    for variant in ("paper", "released"):
        task: dict[str, Any] = {"problem_type": problem_type, "data_type": data_type, "variant": variant}
        score_it = partial(score_response, response, text_of(TRUTHS[problem_type]), **task)
        assert is_quick(score_it, 0.05)
        score = score_it()
        assert 0.0 <= score.overall <= max_overall(problem_type, data_type, variant) + 1e-9
        assert 0.0 <= score.accuracy <= max_accuracy(problem_type, data_type, variant) + 1e-9
        assert score.format in (0.0, 1.0)
        assert 0.0 <= score.structure <= 1.0
        assert score == score_response(response, text_of(TRUTHS[problem_type]), **task)


@pytest.fixture(autouse=True, scope="module")
def _libraries_are_imported():
    """Once, so that no example's time holds an import."""
    for problem_type in PROBLEM_TYPES:
        score_response(
            respond("running away"),
            text_of(TRUTHS[problem_type]),
            problem_type=problem_type,
            data_type="video",
        )


def _long_texts(size):
    letters = random.Random(0)
    words = " ".join("".join(letters.choices(string.ascii_lowercase, k=6)) + "ing" for _ in range(size // 10))
    return {
        "spaces": " " * size,
        "opening tags": "<think>" * (size // 7),
        "tag pairs": "</think><answer>" * (size // 16),
        "braces": "{" * size,
        "deep list": "[" * (size // 11),
        "deep object": '{"boxes":' * (size // 100),
        "digits": "1" * size,
        "long integer": '{"time":[' + "9" * 5_000 + ",1]}",
        "nested tags": "<think><answer>" * (size // 30) + "</answer></think>" * (size // 34),
        "loose tags": "< / answer > " * (size // 13),
        "many boxes": '{"boxes":{' + ",".join(f'"{k}":[1,2,3,4]' for k in range(1_700)) + "}}",
        "duplicate keys": "{" + ",".join(['"boxes":[1,2,3,4]'] * (min(size, 32_000) // 18)) + "}",
        "brackets": "(" * 499 + ")" * 499,
        "non-ASCII": "图é\ud800" * (size // 3),
        "words": words,
        "dollars": "$" * size,
        "letter and spaces": "A" + " " * size + "x",
    }


@pytest.mark.parametrize("size", [240_000, 1_000_000])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_a_long_response_is_scored_at_once(problem_type, size):
    truth = text_of(TRUTHS[problem_type])
    task: dict[str, Any] = {"problem_type": problem_type, "data_type": "video"}
    for name, body in _long_texts(size).items():
        for variant in ("paper", "released"):
            for response in (body, respond(body)):
                score = partial(score_response, response, truth, variant=variant, **task)
                assert is_quick(score, 0.05), (name, variant)


def test_mathematics_that_never_ends_scores_zero_in_time_on_any_thread():
    results = {}

    def score():
        results["score"] = paper("$9^{9^{9^{9}}}$", "math")
        results["after"] = paper("\\frac{3}{6}", "math")

    thread = threading.Thread(target=score)
    thread.start()
    thread.join(HANG_S)  # without its limit it would never end
    assert results["score"].accuracy == 0.0
    assert results["after"].accuracy == 1.0
