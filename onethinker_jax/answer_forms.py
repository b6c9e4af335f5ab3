"""The forms that a part of a JSON answer can have: read leniently from a policy, checked strictly in a truth.

Boxes are [x1, y1, x2, y2] and points [x, y] in 0-1000 of the frame's width and height, times seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]
Point = tuple[float, float]

_CANONICAL_SECOND = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


@dataclass(frozen=True)
class Form:
    """One form of JSON.

    `read` takes any JSON value and gives what it says, or None where it has another form; order and range of
    its numbers are as the policy wrote them. `error` says what is wrong with a value in a true answer, None if
    nothing: a box or span without extent is refused too, since no answer can overlap it.
    """

    read: Callable[[object], Any]
    error: Callable[[Any], str | None]


def finite_number(value: object) -> float | None:
    """A finite float out of a JSON number (not a bool, nothing beyond ±1e15); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(value) if -1e15 <= value <= 1e15 else None


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


def _read_pair(value: object) -> tuple[float, float] | None:
    numbers = finite_numbers(value, 2)
    return None if numbers is None else (numbers[0], numbers[1])


def _read_box(value: object) -> Box | None:
    numbers = finite_numbers(value, 4)
    return None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3])


def _read_boxes(value: object) -> dict[int, Box] | None:
    """{second: box}; keys are whole seconds written plainly ("9", not "09" or "9.0")."""
    if not isinstance(value, dict) or not value:
        return None
    boxes: dict[int, Box] = {}
    for key, item in value.items():
        box = _read_box(item)
        if box is None or not isinstance(key, str) or not _CANONICAL_SECOND.match(key):
            return None
        boxes[int(key)] = box
    return boxes


def _read_points(value: object, least: int, most: int) -> tuple[Point, ...] | None:
    if not isinstance(value, list) or not least <= len(value) <= most:
        return None
    pairs = [_read_pair(item) for item in value]
    found = tuple(pair for pair in pairs if pair is not None)
    return found if len(found) == len(value) else None


def _second_error(value: Any) -> str | None:
    second = finite_number(value)
    return None if second is not None and second >= 0 else f"must be seconds from 0 on, is {value!r:.60}"


def _span_error(value: Any) -> str | None:
    if _read_pair(value) is None:
        return f"must be [start, end] in seconds, is {value!r:.60}"
    return None if 0 <= value[0] < value[1] else f"{value} needs 0 <= start < end"


def _box_error(value: Any) -> str | None:
    if _read_box(value) is None:
        return f"must be [x1, y1, x2, y2], is {value!r:.60}"
    if min(value) < 0 or max(value) > 1000:
        return f"{value} leaves 0-1000"
    x1, y1, x2, y2 = value
    return None if x1 < x2 and y1 < y2 else f"{value} needs x1 < x2 and y1 < y2"


def _boxes_error(value: Any) -> str | None:
    if not isinstance(value, dict) or not value:
        return f"must be an object of boxes by second, is {value!r:.60}"
    for second, box in value.items():
        if not _CANONICAL_SECOND.match(second):
            return f"{second!r} is not a whole second"
        if error := _box_error(box):
            return f"second {second}: {error}"
    return None


def _points_error(value: Any, least: int, most: int) -> str | None:
    if _read_points(value, least, most) is None:
        count = f"{least}" if least == most else f"{least} to {most}"
        return f"must be {count} points [x, y], is {value!r:.60}"
    for point in value:
        if min(point) < 0 or max(point) > 1000:
            return f"{point} leaves 0-1000"
    return None


def points(least: int, most: int) -> Form:
    """`[[x, y], …]` of `least` to `most` points."""
    return Form(
        lambda value: _read_points(value, least, most), lambda value: _points_error(value, least, most)
    )


SECOND = Form(finite_number, _second_error)
"""`4.0`"""
SPAN = Form(_read_pair, _span_error)
"""`[start, end]` in seconds."""
BOX = Form(_read_box, _box_error)
"""`[x1, y1, x2, y2]`"""
BOXES = Form(_read_boxes, _boxes_error)
"""`{"9": [x1, y1, x2, y2], …}`, a box a second; at least one."""
