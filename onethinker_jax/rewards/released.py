"""Accuracy, format and structure as OneThinker's published code gives them, its errors included.

What it accepts is wider than the schema: a number is whatever Python's `float` takes (strings, booleans,
NaN, infinities), boxes at other seconds are ignored, and an empty answer stands for the whole response. Two
things differ: a reward of NaN (a key time of NaN) is 0 here, and a ground truth that is no JSON object raises
where the published code, which turns every exception into 0, gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from onethinker_jax.rewards import metrics
from onethinker_jax.rewards.answers import (
    GroundTruthError,
    extract_answer,
    has_format,
    parse_json,
    tighten_tags,
)
from onethinker_jax.rewards.equivalence.equivalence import math_equal, plain_number
from onethinker_jax.rewards.grading import grade_answer
from onethinker_jax.tasks import TABLE, Task, complete, is_structured, is_video

ACCURACY_WEIGHT, FORMAT_WEIGHT, MAX_STRUCTURE = 0.9, 0.1, 0.5

POINT_SIGMA = 50.0
KEY_TIME_SCALE = 2.0
IMAGE_WEIGHTS = (0.5, 0.25, 0.25)
"""Segmentation of an image: box, positive points, negative points."""
VIDEO_WEIGHTS = (0.3, 0.2, 0.2, 0.3)
"""Segmentation of a video: the same, and the key time."""

_POINTS = ("positive_points", "negative_points")


def answer_text(response: str) -> str:
    """What the published code takes for the answer: between the tags, or all of it when nothing is there."""
    return _tightened_answer(tighten_tags(response))


def _tightened_answer(response: str) -> str:
    return extract_answer(response) or response.strip()


def released_score(
    response: str, truth: str, problem_type: str, data_type: str, text_score: float | None
) -> tuple[float, float, float]:
    """(accuracy, format, structure): in [0, 1], 0 or 1, in [0, 0.5].

    `truth` is without tags. `text_score` in [0, 1] replaces the ROUGE of an open-ended answer. Raises
    GroundTruthError when a structured task's truth is no JSON object.
    """
    response = tighten_tags(response)
    answer = _tightened_answer(response)
    well_formed = float(has_format(response))
    if not TABLE[problem_type].published:  # what the published code gives of a task it does not know
        return 0.0, well_formed, MAX_STRUCTURE * well_formed
    if not is_structured(problem_type):
        if text_score is None or TABLE[problem_type].judged_by != "text":
            text_score = _OF_TEXT[problem_type](answer, truth)
        return text_score, well_formed, MAX_STRUCTURE * well_formed
    wanted = parse_json(truth)
    if not isinstance(wanted, dict):
        raise GroundTruthError(f"{Task.of(problem_type, data_type)}: unreadable ground truth {truth[:200]!r}")
    value = parse_json(answer)
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    try:
        accuracy = _OF_JSON[problem_type](given, wanted, data_type)
    except OverflowError:  # an integer or a square beyond float: 0, as with every exception over there
        accuracy = 0.0
    return accuracy, well_formed, well_formed * _STRUCTURE[problem_type](given, wanted, data_type)


def _math(answer: str, truth: str) -> float:
    equal = math_equal(answer, truth)
    return float(grade_answer(answer, truth) if equal is None else equal)


def _numerical(answer: str, truth: str) -> float:
    given, wanted = plain_number(answer), plain_number(truth)
    return 0.0 if given is None or wanted is None else float(round(given, 2) == round(wanted, 2))


def _regression(answer: str, truth: str) -> float:
    given, wanted = plain_number(answer), plain_number(truth)
    return 0.0 if given is None or wanted is None else metrics.mean_relative_accuracy(given, wanted)


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    """A JSON list of exactly `count` things that `float` takes, NaN and infinities among them; else None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    try:
        return tuple(float(item) for item in value)
    except (TypeError, ValueError, OverflowError):
        return None


def _box_iou(given: object, wanted: object) -> float:
    box, true = _numbers(given, 4), _numbers(wanted, 4)
    return 0.0 if box is None or true is None else metrics.box_iou(box, true)


def _three_points(value: object) -> list[tuple[float, ...]] | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    points = [point for item in value if (point := _numbers(item, 2)) is not None]
    return points if len(points) == 3 else None


Given = dict[str, Any]
"""The JSON object of an answer or of a truth."""


def _span_iou(given: Given, wanted: Given) -> float:
    span, true_span = _numbers(given.get("time"), 2), _numbers(wanted.get("time"), 2)
    return 0.0 if span is None or true_span is None else metrics.span_iou(span, true_span)


def _shared_overlaps(given: Given, wanted: Given) -> list[float]:
    """The IoU of the two boxes at each second that both have."""
    boxes, true_boxes = given.get("boxes"), wanted.get("boxes")
    if not (isinstance(boxes, dict) and isinstance(true_boxes, dict)):
        return []
    return [_box_iou(boxes[key], true) for key, true in true_boxes.items() if key in boxes]


def _tracking(given: Given, wanted: Given) -> float:
    overlaps = _shared_overlaps(given, wanted)
    return sum(overlaps) / len(wanted["boxes"]) if overlaps else 0.0


def _tube(given: Given, wanted: Given) -> float:
    overlaps = _shared_overlaps(given, wanted)
    return 0.5 * _span_iou(given, wanted) + 0.5 * (sum(overlaps) / len(overlaps) if overlaps else 0.0)


def _segmentation(given: dict[str, Any], wanted: dict[str, Any], data_type: str) -> float:
    """0 unless there are three and three points and, in a video, a key time that is a number."""
    parts = [_box_iou(given.get("boxes"), wanted.get("boxes"))]
    for name in _POINTS:
        points, true_points = _three_points(given.get(name)), _three_points(wanted.get(name))
        if points is None or true_points is None:
            return 0.0
        distance = metrics.matched_distance(points, true_points)
        near = math.exp(-(distance**2) / (2 * POINT_SIGMA**2))
        parts.append(0.0 if math.isnan(near) else near)
    weights: tuple[float, ...] = IMAGE_WEIGHTS
    if is_video(data_type):
        weights = VIDEO_WEIGHTS
        time, true_time = given.get("time"), wanted.get("time")
        if not isinstance(time, (int, float)) or not isinstance(true_time, (int, float)):
            return 0.0
        parts.append(math.exp(-abs(float(time) - float(true_time)) / KEY_TIME_SCALE))
    accuracy = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return 0.0 if math.isnan(accuracy) else accuracy


def _has_three_points(given: Given) -> bool:
    return all(_three_points(given.get(name)) is not None for name in _POINTS)


def _segmentation_structure(given: Given, wanted: Given, data_type: str) -> float:
    timed = not is_video(data_type) or isinstance(given.get("time"), (int, float))
    return MAX_STRUCTURE * (
        _has_three_points(given) and timed and _numbers(given.get("boxes"), 4) is not None
    )


def _boxes_structure(given: Given, wanted: Given, *, timed: bool) -> float:
    """Half for boxes of the schema, half for the share of the true seconds that have one."""
    time, boxes, true_boxes = given.get("time"), given.get("boxes"), wanted.get("boxes")
    if not isinstance(boxes, dict):
        return 0.0
    fits = all(_numbers(box, 4) is not None for box in boxes.values())
    if timed:
        fits = fits and isinstance(time, list) and len(time) == 2
    shared = 0.0
    if isinstance(true_boxes, dict) and true_boxes:
        shared = len(boxes.keys() & true_boxes.keys()) / len(true_boxes)
    return 0.5 * MAX_STRUCTURE * fits + 0.5 * MAX_STRUCTURE * shared


_PUBLISHED = {name for name, row in TABLE.items() if row.published}

_OF_TEXT: Mapping[str, Callable[[str, str], float]] = complete(
    "rewards/released.py",
    {
        "multiple choice": lambda answer, truth: float(grade_answer(answer, truth)),
        "numerical": _numerical,
        "regression": _regression,
        "OCR": metrics.word_accuracy,
        "math": _math,
        "open-ended": metrics.mean_rouge,
    },
    (name for name in TABLE if name in _PUBLISHED and not is_structured(name)),
)
"""Answer and truth -> accuracy, where no service gave it."""

_OF_JSON: Mapping[str, Callable[[Given, Given, str], float]] = complete(
    "rewards/released.py",
    {
        "temporal grounding": lambda given, wanted, _: _span_iou(given, wanted),
        "spatial grounding": lambda given, wanted, _: _box_iou(given.get("boxes"), wanted.get("boxes")),
        "spatial-temporal grounding": lambda given, wanted, _: _tube(given, wanted),
        "tracking": lambda given, wanted, _: _tracking(given, wanted),
        "segmentation": _segmentation,
    },
    (name for name in TABLE if name in _PUBLISHED and is_structured(name)),
)
"""Answer, truth and data type -> accuracy."""

_STRUCTURE: Mapping[str, Callable[[Given, Given, str], float]] = complete(
    "rewards/released.py",
    {
        "temporal grounding": lambda given, *_: MAX_STRUCTURE * (_numbers(given.get("time"), 2) is not None),
        "spatial grounding": lambda given, *_: MAX_STRUCTURE * (_numbers(given.get("boxes"), 4) is not None),
        "spatial-temporal grounding": lambda given, wanted, _: _boxes_structure(given, wanted, timed=True),
        "tracking": lambda given, wanted, _: _boxes_structure(given, wanted, timed=False),
        "segmentation": _segmentation_structure,
    },
    _OF_JSON,
)
"""Answer, truth and data type -> structure of a response that has the format."""
