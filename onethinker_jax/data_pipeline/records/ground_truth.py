"""What a true answer must hold, task by task: the checks behind "answer: …" errors.

Boxes are [x1, y1, x2, y2] and points [x, y] in 0-1000 of the frame's width and height, times seconds. A box
or span without extent is refused too: no answer can overlap it, so its reward would be 0 whatever is said.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from onethinker_jax.rewards.answers import parse_structured, unwrap_answer
from onethinker_jax.rewards.equivalence.quantities import number_fault
from onethinker_jax.rewards.option_answers import option_letters

POINTS = 3  # of each kind, in a segmentation answer
_SECOND = re.compile(r"0|[1-9][0-9]{0,8}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def answer_fault(answer: str, problem_type: str, data_type: str, options: Sequence[str]) -> str | None:
    """What is wrong with a true answer (without its tags), as "part: fault" or "fault"; None if nothing.

    `options` may be empty for a row that has them in its messages.
    """
    if not answer:
        return "must be a text that is not empty"
    if problem_type == "multiple choice":
        return _choice_fault(answer, options)
    if problem_type in ("numerical", "regression"):
        return number_fault(answer, problem_type)
    if problem_type not in _PARTS:
        return None
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError) as error:
        return f"is not JSON, which {problem_type} needs ({error})"
    if not isinstance(parsed, dict):
        return f"must be a JSON object, is a {type(parsed).__name__}"
    parts = dict(_PARTS[problem_type])
    if problem_type == "segmentation" and data_type != "image":
        parts["time"] = _time_fault
    for part, check in parts.items():
        if part not in parsed:
            return f"{part}: is missing, which {problem_type} needs"
        if fault := check(parsed[part]):
            return f"{part}: {fault}"
    if problem_type == "spatial-temporal grounding":
        start, end = parsed["time"]
        for second in parsed["boxes"]:  # span ends are often rounded: whole seconds around it count as inside
            if not math.floor(start) <= int(second) <= math.ceil(end):
                return f"boxes: second {second} is outside the time {start:g} to {end:g}"
    return None


def answer_doubt(answer: str, problem_type: str, data_type: str) -> str:
    """What in a good answer, tags around it or not, looks wrong, as "answer.part: doubt"; "" if nothing does.

    Numbers that are all within 0 to 1 are a corner of 1 by 1 thousandth, or fractions of the frame's sides.
    """
    marks = parse_structured(unwrap_answer(answer), problem_type, data_type) if answer else None
    if marks is None:
        return ""
    boxes = [*marks.boxes.values(), *([marks.box] if marks.box is not None else [])]
    for part, values in {
        "boxes": boxes,
        "positive_points": marks.positive_points,
        "negative_points": marks.negative_points,
    }.items():
        if len(values) and all(0 <= number <= 1 for value in values for number in value):
            return f"answer.{part}: all within 0 to 1, which looks like fractions; 0 to 1000 is expected"
    return ""


def _choice_fault(answer: str, options: Sequence[str]) -> str | None:
    letters = option_letters(options) or _LETTERS
    if len(answer) == 1 and answer in letters:
        return None
    return f"multiple choice needs one letter of {letters[0]} to {letters[-1]}, has {answer!r:.60}"


def numbers(value: Any, count: int) -> bool:
    """Whether a JSON value is a list of `count` finite numbers."""
    return isinstance(value, list) and len(value) == count and all(map(is_number, value))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e15 < value < 1e15


def _time_fault(value: Any) -> str | None:
    return None if is_number(value) and value >= 0 else f"must be seconds from 0 on, is {value!r:.60}"


def _span_fault(value: Any) -> str | None:
    if not numbers(value, 2):
        return f"must be [start, end] in seconds, is {value!r:.60}"
    return None if 0 <= value[0] < value[1] else f"{value} needs 0 <= start < end"


def _box_fault(value: Any) -> str | None:
    if not numbers(value, 4):
        return f"must be [x1, y1, x2, y2], is {value!r:.60}"
    if min(value) < 0 or max(value) > 1000:
        return f"{value} leaves 0-1000"
    x1, y1, x2, y2 = value
    return None if x1 < x2 and y1 < y2 else f"{value} needs x1 < x2 and y1 < y2"


def _boxes_fault(value: Any) -> str | None:
    if not isinstance(value, dict) or not value:
        return f"must be an object of boxes by second, is {value!r:.60}"
    for second, box in value.items():
        if not _SECOND.fullmatch(second):
            return f"{second!r} is not a whole second"
        if fault := _box_fault(box):
            return f"second {second}: {fault}"
    return None


def _points_fault(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) != POINTS or not all(numbers(p, 2) for p in value):
        return f"must be {POINTS} points [x, y], is {value!r:.60}"
    for point in value:
        if min(point) < 0 or max(point) > 1000:
            return f"{point} leaves 0-1000"
    return None


_PARTS: dict[str, dict[str, Callable[[Any], str | None]]] = {
    "temporal grounding": {"time": _span_fault},
    "spatial grounding": {"boxes": _box_fault},
    "spatial-temporal grounding": {"time": _span_fault, "boxes": _boxes_fault},
    "tracking": {"boxes": _boxes_fault},
    "segmentation": {
        "boxes": _box_fault,
        "positive_points": _points_fault,
        "negative_points": _points_fault,
    },
}
