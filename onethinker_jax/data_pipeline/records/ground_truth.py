"""What a true answer must hold, task by task: the checks behind "answer: …" errors.

Boxes are [x1, y1, x2, y2] and points [x, y] in 0-1000 of the frame's width and height, times seconds. A box
or span without extent is refused too: no answer can overlap it, so its reward would be 0 whatever is said.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from onethinker_jax.rewards.answers import parse_structured, unwrap_answer
from onethinker_jax.rewards.equivalence.quantities import number_error
from onethinker_jax.rewards.option_answers import option_letters
from onethinker_jax.tasks import TABLE, AnswerKind, complete

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def answer_error(answer: str, problem_type: str, data_type: str, options: Sequence[str]) -> str | None:
    """What is wrong with a true answer (without its tags), as "part: error" or "error"; None if nothing.

    `options` may be empty for a row that has them in its messages.
    """
    if not answer:
        return "must be a text that is not empty"
    if not problem_type:
        return None  # an SFT row that does not say
    return _ERRORS[TABLE[problem_type].answer](answer, problem_type, data_type, options)


def answer_doubt(answer: str, problem_type: str, data_type: str) -> str:
    """What in a good answer, tags around it or not, looks wrong, as "answer.part: doubt"; "" if nothing does.

    Numbers that are all within 0 to 1 are a corner of 1 by 1 thousandth, or fractions of the frame's sides.
    """
    annotations = parse_structured(unwrap_answer(answer), problem_type, data_type) if answer else None
    if annotations is None:
        return ""
    boxes = [*annotations.boxes.values(), *([annotations.box] if annotations.box is not None else [])]
    for part, values in {
        "boxes": boxes,
        "positive_points": annotations.positive_points,
        "negative_points": annotations.negative_points,
    }.items():
        if len(values) and all(0 <= number <= 1 for value in values for number in value):
            return f"answer.{part}: all within 0 to 1, which looks like fractions; 0 to 1000 is expected"
    return ""


def _choice_error(answer: str, problem_type: str, data_type: str, options: Sequence[str]) -> str | None:
    letters = option_letters(options) or _LETTERS
    if len(answer) == 1 and answer in letters:
        return None
    return f"{problem_type} needs one letter of {letters[0]} to {letters[-1]}, has {answer!r:.60}"


def _json_error(answer: str, problem_type: str, data_type: str, options: Sequence[str]) -> str | None:
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError) as error:
        return f"is not JSON, which {problem_type} needs ({error})"
    if not isinstance(parsed, dict):
        return f"must be a JSON object, is a {type(parsed).__name__}"
    for part in TABLE[problem_type].parts_of(data_type):
        if part.key not in parsed:
            return f"{part.key}: is missing, which {problem_type} needs"
        if error := part.form.error(parsed[part.key]):
            return f"{part.key}: {error}"
    if TABLE[problem_type].keys_within_time:
        start, end = parsed["time"]
        for second in parsed["boxes"]:  # span ends are often rounded: whole seconds around it count as inside
            if not math.floor(start) <= int(second) <= math.ceil(end):
                return f"boxes: second {second} is outside the time {start:g} to {end:g}"
    return None


_ERRORS: Mapping[AnswerKind, Callable[[str, str, str, Sequence[str]], str | None]] = complete(
    "records/ground_truth.py",
    {
        "letter": _choice_error,
        "number": lambda answer, problem_type, *_: number_error(answer, problem_type),
        "estimate": lambda answer, problem_type, *_: number_error(answer, problem_type),
        "result": lambda *_: None,
        "text": lambda *_: None,
        "JSON": _json_error,
    },
    get_args(AnswerKind),
)
"""Answer, problem type, data type and options -> what is wrong with a true answer that is not empty."""
