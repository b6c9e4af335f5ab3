"""Reads what a policy wrote: the reasoning, the answer, and the JSON inside the answer.

A response is `<think>…</think><answer>…</answer>`. Everything here accepts any string at all, in time
linear in its length, and never raises on one: what cannot be read is `None`. The tags are looked for with
`str.find` instead of a regular expression because a lazy pattern with two gaps backtracks quadratically on
a response that repeats an opening tag, which a policy under optimisation does find.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field

from onethinker_jax.errors import SkippableError

TEXT_TYPES = ("multiple choice", "numerical", "regression", "OCR", "math", "open-ended")
STRUCTURED_TYPES = (
    "temporal grounding",
    "spatial grounding",
    "spatial-temporal grounding",
    "tracking",
    "segmentation",
)
PROBLEM_TYPES = TEXT_TYPES + STRUCTURED_TYPES


class GroundTruthError(SkippableError, ValueError):
    """The ground truth cannot be read for its task: the record is broken, not the answer."""


Box = tuple[float, float, float, float]
Point = tuple[float, float]

MAX_RESPONSE_CHARS = 250_000
"""A longer response scores 0 unread: 4,096 tokens never come near it, and no answer may cost long."""

MAX_JSON_CHARS = 32_768
"""Longer answers and truths are not parsed: 32 boxes take about 1,500 characters, this holds 900."""

_THINK, _THINK_END, _ANSWER, _ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"
_CANONICAL_SECOND = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class StructuredAnswer:
    """A structured answer that fits its task's schema; the fields of other tasks are empty.

    Boxes are (x1, y1, x2, y2) and points (x, y), both in 0–1000 of the frame's own width and height; times
    are seconds. All numbers are finite; order and range are as the policy wrote them.
    """

    span: tuple[float, float] | None = None
    """(start, end): temporal and spatial-temporal grounding."""
    key_time: float | None = None
    """The key frame's second: segmentation of a video."""
    box: Box | None = None
    """Spatial grounding and segmentation."""
    boxes: dict[int, Box] = field(default_factory=dict)
    """Second -> box: tracking and spatial-temporal grounding."""
    positive_points: tuple[Point, ...] = ()
    negative_points: tuple[Point, ...] = ()


def is_video(data_type: str) -> bool:
    """Whether a `data_type` ("image", "video", "video-image", "text") has a time axis."""
    return data_type.startswith("video")


def _between(text: str, opening: str, closing: str) -> str | None:
    start = text.find(opening)
    if start < 0:
        return None
    start += len(opening)
    end = text.find(closing, start)
    return None if end < 0 else text[start:end].strip()


def extract_answer(response: str) -> str | None:
    """The text between the first `<answer>` and the `</answer>` after it, stripped; None without both."""
    return _between(response, _ANSWER, _ANSWER_END)


def extract_thinking(response: str) -> str | None:
    """The text between the first `<think>` and the `</think>` after it, stripped; None without both."""
    return _between(response, _THINK, _THINK_END)


def unwrap_answer(text: str) -> str:
    """The inside of `<answer>…</answer>` when the text has the tags, else the text itself, stripped."""
    inside = extract_answer(text)
    return text.strip() if inside is None else inside


def has_format(response: str) -> bool:
    """Whether the whole response is `<think>…</think>` then `<answer>…</answer>`.

    White space may stand around and between them, and tags may repeat inside: the released rule.
    """
    text = response.strip()
    if not (text.startswith(_THINK) and text.endswith(_ANSWER_END)):
        return False
    last = len(text) - len(_ANSWER_END)
    position = text.find(_THINK_END, len(_THINK))
    while position >= 0:
        after = position + len(_THINK_END)
        while after < last and text[after].isspace():
            after += 1
        if text.startswith(_ANSWER, after) and after + len(_ANSWER) <= last:
            return True
        position = text.find(_THINK_END, after)
    return False


def has_strict_format(response: str) -> bool:
    """`has_format`, and each of the four tags occurs exactly once.

    The paper variant's rule: with repeated tags a policy could offer several answers.
    """
    once = all(response.count(tag) == 1 for tag in (_THINK, _THINK_END, _ANSWER, _ANSWER_END))
    return once and has_format(response)


def tighten_tags(text: str) -> str:
    """Drops the white space around every `<`, `>` and `/`: what the released code does to a response."""
    for mark in "<>/":
        if mark in text:
            first, *middle, last = text.split(mark)
            text = mark.join([first.rstrip(), *[piece.strip() for piece in middle], last.lstrip()])
    return text


def parse_json(text: str) -> object | None:
    """`json.loads` that gives None for anything it cannot read.

    Too deep, too long, or with an integer too long to convert, are None too. NaN and Infinity come
    through as floats, duplicate keys keep the last value: the readers below check numbers themselves.
    """
    if len(text) > MAX_JSON_CHARS:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def finite_numbers(value: object, count: int) -> tuple[float, ...] | None:
    """`count` finite floats out of a JSON list of exactly `count` numbers; None for anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    numbers = []
    for item in value:
        number = finite_number(item)
        if number is None:
            return None
        numbers.append(number)
    return tuple(numbers)


def finite_number(value: object) -> float | None:
    """A finite float out of a JSON number (not a bool, nothing beyond ±1e15); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(value) if -1e15 <= value <= 1e15 else None


def _box(value: object) -> Box | None:
    numbers = finite_numbers(value, 4)
    return None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3])


def _pair(value: object) -> tuple[float, float] | None:
    numbers = finite_numbers(value, 2)
    return None if numbers is None else (numbers[0], numbers[1])


def points(value: object, count: int = 3) -> tuple[Point, ...] | None:
    """`count` points out of a JSON list of exactly `count` pairs of finite numbers; else None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    pairs = [_pair(item) for item in value]
    found = tuple(pair for pair in pairs if pair is not None)
    return found if len(found) == count else None


def boxes_by_second(value: object) -> dict[int, Box] | None:
    """{second: box} out of a JSON object; None unless it has entries and every one is well formed.

    Keys are whole seconds written plainly ("9", not "09" or "9.0").
    """
    if not isinstance(value, dict) or not value:
        return None
    boxes: dict[int, Box] = {}
    for key, item in value.items():
        box = _box(item)
        if box is None or not isinstance(key, str) or not _CANONICAL_SECOND.match(key):
            return None
        boxes[int(key)] = box
    return boxes


def parse_structured(answer: str | None, problem_type: str, data_type: str) -> StructuredAnswer | None:
    """Reads a structured answer; None when it is not valid JSON of its task's schema.

    `answer` is the text inside the tags. For a text task the result is None as well: there is nothing to
    read. The schemas:

    - temporal grounding: `{"time": [start, end]}`
    - spatial grounding: `{"boxes": [x1, y1, x2, y2]}`
    - spatial-temporal grounding: `{"time": [start, end], "boxes": {"9": [..4..], …}}`
    - tracking: `{"boxes": {"1": [..4..], …}}`
    - segmentation: `{"boxes": [..4..], "positive_points": [[x, y]×3], "negative_points": [[x, y]×3]}`, and
      `"time": t` for a video
    """
    if answer is None or problem_type not in STRUCTURED_TYPES:
        return None
    value = parse_json(answer)
    if not isinstance(value, dict):
        return None
    if problem_type == "temporal grounding":
        span = _pair(value.get("time"))
        return None if span is None else StructuredAnswer(span=span)
    if problem_type == "spatial grounding":
        box = _box(value.get("boxes"))
        return None if box is None else StructuredAnswer(box=box)
    if problem_type == "tracking":
        boxes = boxes_by_second(value.get("boxes"))
        return None if boxes is None else StructuredAnswer(boxes=boxes)
    if problem_type == "spatial-temporal grounding":
        span, boxes = _pair(value.get("time")), boxes_by_second(value.get("boxes"))
        return None if span is None or boxes is None else StructuredAnswer(span=span, boxes=boxes)
    box = _box(value.get("boxes"))
    positive, negative = points(value.get("positive_points")), points(value.get("negative_points"))
    key_time = finite_number(value.get("time"))
    if box is None or positive is None or negative is None or (is_video(data_type) and key_time is None):
        return None
    return StructuredAnswer(
        box=box,
        positive_points=positive,
        negative_points=negative,
        key_time=key_time if is_video(data_type) else None,
    )
