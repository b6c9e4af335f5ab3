"""Reads what a policy wrote: the reasoning, the answer, and the JSON inside the answer.

A response is `<think>…</think><answer>…</answer>`. Everything here accepts any string at all, in time
linear in its length, and never raises on one: what cannot be read is `None`. The tags are looked for with
`str.find` instead of a regular expression because a lazy pattern with two gaps backtracks quadratically on
a response that repeats an opening tag, which a policy under optimisation does find.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from onethinker_jax.answer_forms import Box, Point
from onethinker_jax.errors import SkippableError
from onethinker_jax.tasks import TABLE


class GroundTruthError(SkippableError, ValueError):
    """The ground truth cannot be read for its task: the record is broken, not the answer."""


MAX_RESPONSE_CHARS = 250_000
"""A longer response scores 0 unread: 4,096 tokens never come near it, and no answer may cost long."""

MAX_JSON_CHARS = 32_768
"""Longer answers and truths are not parsed: 32 boxes take about 1,500 characters, this holds 900."""

_THINK, _THINK_END, _ANSWER, _ANSWER_END = "<think>", "</think>", "<answer>", "</answer>"


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


def parse_structured(answer: str | None, problem_type: str, data_type: str) -> StructuredAnswer | None:
    """Reads a structured answer; None when it is not valid JSON of its task's schema (`tasks.TABLE`).

    `answer` is the text inside the tags. For a text task, and for a row without a problem type, the result is
    None as well: there is nothing to read. Raises ValueError for an unknown problem type.
    """
    if not problem_type or TABLE[problem_type].answer != "JSON" or answer is None:
        return None
    value = parse_json(answer)
    if not isinstance(value, dict):
        return None
    parts = TABLE[problem_type].parts_of(data_type)
    found = {part.field: part.form.read(value.get(part.key)) for part in parts}
    return None if None in found.values() else StructuredAnswer(**found)
