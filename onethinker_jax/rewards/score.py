"""A response and its ground truth in, a `Score` out: the reward that reinforcement learning optimises.

Two variants. `"paper"` follows the formulas of OneThinker (arXiv 2512.03043), with three decisions of ours
where it is silent or can be gamed: the format reward's weight is a setting; the mean box overlap of
spatio-temporal grounding runs over the *true* seconds, a missing one counting 0, so that answering few
seconds does not pay; and a structured answer outside its schema has accuracy 0. `"released"` reproduces the
published code's numbers, its faults included where they change a reward. docs/rewards.md has every formula.

A malformed answer scores low and never raises; a malformed ground truth is a broken record and raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from onethinker_jax.rewards import metrics
from onethinker_jax.rewards.answers import (
    MAX_RESPONSE_CHARS,
    PROBLEM_TYPES,
    STRUCTURED_TYPES,
    StructuredAnswer,
    extract_answer,
    finite_number,
    has_format,
    has_strict_format,
    is_video,
    parse_json,
    parse_structured,
    points,
    tighten_tags,
    unwrap_answer,
)
from onethinker_jax.rewards.equivalence import (
    grade_answer,
    math_equal,
    math_equivalent,
    options_equivalent,
    plain_number,
)

Variant = Literal["paper", "released"]

POINT_SIGMA = 50.0
KEY_TIME_SIGMA = 1.0


class GroundTruthError(ValueError):
    """The ground truth cannot be read for its task: the record is broken, not the answer."""


@dataclass(frozen=True)
class Score:
    """What a response earned. `overall` is the reward; the other three are its parts.

    `accuracy` is in [0, max_accuracy(…)], `format` 0 or 1. `structure` is, in the paper variant, 1 when the
    answer fits its task's schema (any answer, for the text tasks) and 0 else; in the released variant the
    extra term in [0, 0.5].
    """

    overall: float
    accuracy: float
    format: float
    structure: float


@dataclass(frozen=True)
class RewardSettings:
    """The paper variant's free choices: `overall = accuracy + format_weight · format`.

    The paper adds the two terms and gives no weights, so 1 is its equation as it stands.
    """

    format_weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.format_weight) and self.format_weight >= 0):
            raise ValueError(f"format_weight must be a finite number of at least 0, not {self.format_weight}")


DEFAULT_SETTINGS = RewardSettings()


def max_accuracy(problem_type: str, data_type: str, variant: Variant = "paper") -> float:
    """The largest accuracy of a task: 1, but in the paper variant 2 for spatio-temporal grounding, 3 for
    segmentation of an image and 4 of a video, whose terms are summed."""
    _check_task(problem_type, variant)
    if variant == "paper" and problem_type == "spatial-temporal grounding":
        return 2.0
    if variant == "paper" and problem_type == "segmentation":
        return 4.0 if is_video(data_type) else 3.0
    return 1.0


def max_overall(
    problem_type: str,
    data_type: str,
    variant: Variant = "paper",
    settings: RewardSettings = DEFAULT_SETTINGS,
) -> float:
    """The largest reward of a task; divide by it to compare tasks in one table."""
    accuracy = max_accuracy(problem_type, data_type, variant)
    return accuracy + settings.format_weight if variant == "paper" else 0.9 * accuracy + 0.1 + 0.5


def score_response(
    response: str,
    ground_truth: str,
    *,
    problem_type: str,
    data_type: str,
    variant: Variant = "paper",
    text_score: float | None = None,
    settings: RewardSettings = DEFAULT_SETTINGS,
) -> Score:
    """Scores one response.

    `ground_truth` may be wrapped in `<answer>…</answer>`. `text_score` in [0, 1], where a reward service
    computed one, replaces the local ROUGE of an open-ended answer and is ignored for every other task.
    Raises ValueError for an unknown task or variant and GroundTruthError for a truth its task cannot read;
    never for a response.
    """
    _check_task(problem_type, variant)
    truth = unwrap_answer(ground_truth)
    if len(response) > MAX_RESPONSE_CHARS:
        response = ""
    if variant == "released":
        return _score_released(response, truth, problem_type, data_type, text_score)
    answer = extract_answer(response)
    structured = parse_structured(answer, problem_type, data_type)
    if problem_type in STRUCTURED_TYPES:
        wanted = parse_structured(truth, problem_type, data_type)
        if wanted is None:
            raise GroundTruthError(f"{problem_type} ({data_type}): unreadable ground truth {truth[:200]!r}")
        structure = float(structured is not None)
        accuracy = 0.0 if structured is None else _PAPER_STRUCTURED[problem_type](structured, wanted)
    else:
        structure = float(bool(answer))
        accuracy = _text_accuracy(answer, truth, problem_type, text_score)
    tags = has_strict_format(response)
    score_format = float(tags and structure == 1.0)
    return Score(accuracy + settings.format_weight * score_format, accuracy, score_format, structure)


def _check_task(problem_type: str, variant: str) -> None:
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"unknown problem_type {problem_type!r}: one of {', '.join(PROBLEM_TYPES)}")
    if variant not in ("paper", "released"):
        raise ValueError(f'unknown reward variant {variant!r}: "paper" or "released"')


def _text_accuracy(answer: str | None, truth: str, problem_type: str, text_score: float | None) -> float:
    """The paper variant's accuracy of the text tasks; 0 without an answer."""
    if problem_type == "regression" and plain_number(truth) is None:
        raise GroundTruthError(f"regression: the ground truth {truth[:200]!r} is not a number")
    if not answer:
        return 0.0
    if problem_type == "multiple choice":
        return float(options_equivalent(answer, truth))
    if problem_type == "numerical":
        return float(_numbers_equivalent(answer, truth))
    if problem_type == "math":
        return float(math_equivalent(answer, truth))
    if problem_type == "regression":
        return _regression(answer, truth)
    if problem_type == "OCR":
        return metrics.word_accuracy(answer, truth)
    return _unit(text_score) if text_score is not None else metrics.mean_rouge(answer, truth)


def _unit(value: float) -> float:
    """`value` clipped to [0, 1]; raises ValueError for NaN, which only a broken service can send."""
    if math.isnan(value):
        raise ValueError("text_score is NaN")
    return min(max(float(value), 0.0), 1.0)


def _numbers_equivalent(answer: str, truth: str) -> bool:
    """Equal to the decimals the truth shows, two at least, and to 0.5%; by mathematics if not numbers."""
    given, wanted = plain_number(answer.removesuffix("%")), plain_number(truth.removesuffix("%"))
    if given is None or wanted is None:
        return math_equivalent(answer, truth)
    if not (math.isfinite(given) and math.isfinite(wanted)):
        return False
    decimals = max(2, len(truth.strip().partition(".")[2]))
    rounding = 0.5 * 10.0 ** -min(decimals, 15)
    return abs(given - wanted) <= min(rounding, 0.005 * abs(wanted)) + 1e-12 * abs(wanted)


def _regression(answer: str, truth: str) -> float:
    given, wanted = plain_number(answer), plain_number(truth)
    if given is None or wanted is None:
        return 0.0
    return metrics.mean_relative_accuracy(given, wanted)


def _temporal(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    assert answer.span is not None
    assert truth.span is not None
    return metrics.span_iou(answer.span, truth.span)


def _spatial(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    assert answer.box is not None
    assert truth.box is not None
    return metrics.box_iou(answer.box, truth.box)


def _tracking(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    return metrics.mean_box_iou(answer.boxes, truth.boxes)


def _spatio_temporal(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    """tIoU + mean sIoU over the true seconds; boxes at other seconds neither help nor harm."""
    return _temporal(answer, truth) + metrics.mean_box_iou(answer.boxes, truth.boxes)


def _segmentation(answer: StructuredAnswer, truth: StructuredAnswer) -> float:
    """sIoU + G(d⁺; 50) + G(d⁻; 50), and + G(|t̂ − t|; 1) in a video."""
    total = _spatial(answer, truth)
    for given, wanted in (
        (answer.positive_points, truth.positive_points),
        (answer.negative_points, truth.negative_points),
    ):
        total += metrics.gaussian(metrics.matched_distance(given, wanted), POINT_SIGMA)
    if answer.key_time is not None and truth.key_time is not None:
        total += metrics.gaussian(answer.key_time - truth.key_time, KEY_TIME_SIGMA)
    return total


_PAPER_STRUCTURED: dict[str, Callable[[StructuredAnswer, StructuredAnswer], float]] = {
    "temporal grounding": _temporal,
    "spatial grounding": _spatial,
    "tracking": _tracking,
    "spatial-temporal grounding": _spatio_temporal,
    "segmentation": _segmentation,
}


def _score_released(
    response: str, truth: str, problem_type: str, data_type: str, text_score: float | None
) -> Score:
    """`0.9·accuracy + 0.1·format + structure`, as the published code computes it."""
    response = tighten_tags(response)
    tagged = extract_answer(response)
    answer = response.strip() if tagged is None else tagged
    score_format = float(has_format(response))
    if problem_type in STRUCTURED_TYPES:
        wanted = parse_json(truth)
        if not isinstance(wanted, dict):
            raise GroundTruthError(f"{problem_type} ({data_type}): unreadable ground truth {truth[:200]!r}")
        value = parse_json(answer)
        given: dict[str, Any] = value if isinstance(value, dict) else {}
        accuracy = _released_structured(given, wanted, problem_type, data_type)
        structure = _released_structure(given, wanted, problem_type, data_type)
    else:
        accuracy = _released_text(answer, truth, problem_type, text_score)
        structure = 0.5
    structure *= score_format
    return Score(0.9 * accuracy + 0.1 * score_format + structure, accuracy, score_format, structure)


def _released_text(answer: str, truth: str, problem_type: str, text_score: float | None) -> float:
    if problem_type == "multiple choice":
        return float(grade_answer(answer, truth))
    if problem_type == "numerical":
        given, wanted = plain_number(answer), plain_number(truth)
        return float(given is not None and wanted is not None and round(given, 2) == round(wanted, 2))
    if problem_type == "math":
        equal = math_equal(answer, truth)
        return float(grade_answer(answer, truth) if equal is None else equal)
    if problem_type == "regression":
        return _regression(answer, truth)
    if problem_type == "OCR":
        return metrics.word_accuracy(answer, truth)
    return _unit(text_score) if text_score is not None else metrics.mean_rouge(answer, truth)


def _loose_number(value: object) -> float | None:
    """A finite number, or a string `float` reads as one: the released code converts what it gets."""
    if isinstance(value, str) and len(value) <= 400:
        try:
            value = float(value)
        except ValueError:
            return None
    return finite_number(value)


def _loose_numbers(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    numbers = tuple(number for item in value if (number := _loose_number(item)) is not None)
    return numbers if len(numbers) == count else None


def _released_boxes(value: object) -> dict[str, tuple[float, ...]]:
    """The well-formed boxes of a JSON object, under the keys as written."""
    if not isinstance(value, dict):
        return {}
    boxes = {key: _loose_numbers(item, 4) for key, item in value.items()}
    return {key: box for key, box in boxes.items() if box is not None}


def _released_structured(
    given: dict[str, Any], wanted: dict[str, Any], problem_type: str, data_type: str
) -> float:
    span, true_span = _loose_numbers(given.get("time"), 2), _loose_numbers(wanted.get("time"), 2)
    box, true_box = _loose_numbers(given.get("boxes"), 4), _loose_numbers(wanted.get("boxes"), 4)
    boxes, true_boxes = _released_boxes(given.get("boxes")), _released_boxes(wanted.get("boxes"))
    time_overlap = metrics.span_iou(span, true_span) if span and true_span else 0.0
    overlaps = {key: metrics.box_iou(boxes[key], true) for key, true in true_boxes.items() if key in boxes}
    if problem_type == "temporal grounding":
        return time_overlap
    if problem_type == "spatial grounding":
        return metrics.box_iou(box, true_box) if box and true_box else 0.0
    if problem_type == "tracking":
        return sum(overlaps.values()) / len(true_boxes) if true_boxes else 0.0
    if problem_type == "spatial-temporal grounding":
        mean = sum(overlaps.values()) / len(overlaps) if overlaps else 0.0
        return 0.5 * time_overlap + 0.5 * mean
    near = []
    for name in ("positive_points", "negative_points"):
        found, true_points = points(given.get(name)), points(wanted.get(name))
        if found is None or true_points is None:
            return 0.0
        near.append(metrics.gaussian(metrics.matched_distance(found, true_points), POINT_SIGMA))
    overlap = metrics.box_iou(box, true_box) if box and true_box else 0.0
    if not is_video(data_type):
        return 0.5 * overlap + 0.25 * near[0] + 0.25 * near[1]
    time, true_time = _loose_number(given.get("time")), _loose_number(wanted.get("time"))
    at_time = 0.0 if time is None or true_time is None else math.exp(-abs(time - true_time) / 2.0)
    return 0.3 * overlap + 0.3 * at_time + 0.2 * near[0] + 0.2 * near[1]


def _released_structure(
    given: dict[str, Any], wanted: dict[str, Any], problem_type: str, data_type: str
) -> float:
    has_span = _loose_numbers(given.get("time"), 2) is not None
    has_box = _loose_numbers(given.get("boxes"), 4) is not None
    if problem_type == "temporal grounding":
        return 0.5 if has_span else 0.0
    if problem_type == "spatial grounding":
        return 0.5 if has_box else 0.0
    if problem_type == "segmentation":
        pointed = all(points(given.get(name)) is not None for name in ("positive_points", "negative_points"))
        timed = not is_video(data_type) or _loose_number(given.get("time")) is not None
        return 0.5 if has_box and pointed and timed else 0.0
    boxes, true_boxes = given.get("boxes"), wanted.get("boxes")
    if not isinstance(boxes, dict) or not isinstance(true_boxes, dict) or not true_boxes:
        return 0.0
    if problem_type == "spatial-temporal grounding" and not has_span:
        return 0.0
    if any(_loose_numbers(item, 4) is None for item in boxes.values()):
        return 0.0
    return 0.25 + 0.25 * len(boxes.keys() & true_boxes.keys()) / len(true_boxes)
