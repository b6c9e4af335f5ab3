"""What a judge's text says; None where it says nothing that can be taken for sure."""

import ast
import json
import re
from collections.abc import Iterable
from typing import Any

from onethinker_jax.evaluate.judges.types import NO_OPTION, Match

_LETTER = re.compile(r"(?<![A-Za-z0-9])([A-Z])(?![A-Za-z0-9'])")
_FIRST_LETTER = re.compile(r"\W*([A-Z])\W*(?:$|\n|[.):]\s)")
_FIRST_WORD = re.compile(r"\W*(yes|no|true|false|correct|incorrect|1|0)\b", re.IGNORECASE)
_RATING = re.compile(r"(?<![\d./])([0-9])(?:\.0)?(?:\s*(?:/|out of)\s*5)?(?![\d/]|\.\d)")
_OBJECT = re.compile(r"\{[^{}]*\}")
_LABEL = re.compile(r"^\s*(?:the\s+)?(?:final\s+|extracted\s+)?answer\s*(?:is)?\s*:\s*", re.IGNORECASE)


def read_choice(text: str, letters: Iterable[str]) -> str | None:
    """The only option's letter in the text, or the one that it begins with; `NO_OPTION` where it says so."""
    known = {*letters, NO_OPTION}
    first = _FIRST_LETTER.match(text)
    if first and first[1] in known:
        return first[1]
    found = {letter for letter in _LETTER.findall(text) if letter in known}
    return found.pop() if len(found) == 1 else None


def read_value(text: str) -> str | None:
    """The text without a label before it; "" where it says NONE, None where it is empty."""
    value = _LABEL.sub("", text).strip().strip("`").strip()
    if not value:
        return None
    return "" if value.rstrip(".").upper() == "NONE" else value


def read_words(text: str) -> str | None:
    """The text, None where it is empty."""
    return _LABEL.sub("", text).strip() or None


def read_yes_no(text: str) -> bool | None:
    """Whether the text begins with yes, or with no."""
    found = _FIRST_WORD.match(text)
    return None if found is None else found[1].lower() in ("yes", "true", "correct", "1")


def read_match(text: str) -> Match | None:
    """The last JSON object of the text with an agreement and a rating of 0 to 5."""
    for found in reversed(_OBJECT.findall(text)):
        value = _object(found)
        if value is None:
            continue
        correct = read_yes_no(str(value.get("correct", "")))
        rating = _whole(value.get("rating"), 0, 5)
        if correct is not None and rating is not None:
            return Match(correct, rating)
    return None


def read_rating(text: str) -> int | None:
    """The only whole number of 1 to 5 in the text."""
    found = set(_RATING.findall(text))
    return _whole(found.pop(), 1, 5) if len(found) == 1 else None


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object, or a Python dictionary as some models write it."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _whole(value: object, low: int, high: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() and low <= number <= high else None
