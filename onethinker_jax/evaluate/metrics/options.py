"""Which option an answer names, in the ways that decide the published numbers.

Released: the answer's first character. Standard, as VLMEvalKit matches without a judge: the one option letter that
stands alone among the words, if it is one of the last four; else the one option whose text the answer holds.

Two benchmarks have their own. Video-Holmes, standard: within the last pair of answer tags the first of A to F that has
a space or colon behind it or a square bracket before it, else the first that is there at all; without tags none.
Released, the rule that OneThinker put in its place: the letter at the start of the last answer, else the last letter
that stands alone, of the whole response where it has no tags. LongVideoBench, both: the first of A to E in the answer
without phrases such as "The answer is". What no rule reads is unread, never a random option.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from onethinker_jax.evaluate.benchmarks.types import OptionRule
from onethinker_jax.rewards.option_answers import option_letters

LETTERS = string.ascii_uppercase
_NO_LETTERS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 4
_OPENING, _CLOSING = "<answer>", "</answer>"
_REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_AT_START = re.compile(r"([A-F])(?:[.:、\s]|$)", re.IGNORECASE)
_ALONE = re.compile(r"\b([A-F])\b", re.IGNORECASE)
_PHRASES = re.compile(
    r"The best answer is|The correct answer is|The answer is|The answer|The best option is|The correct option is"
    r"|Best answer:|Best option:|Answer:|Option:"
)
_LABEL = re.compile(r"\s*[(\[]?\s*[A-Z]\s*[.):\]]\s*")
_BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")


def first_letter(text: str) -> str | None:
    """The first character of an answer, upper case; None where it is no letter of A to Z."""
    first = text.strip()[:1].upper()
    return first if first in LETTERS and first else None


def choices(options: Sequence[str]) -> dict[str, str]:
    """Letter -> the option's text without its letter. Without options every letter stands for no text."""
    if not options:
        return dict.fromkeys(LETTERS, "")
    letters = option_letters(options)
    labelled = all(_LABEL.match(option) for option in options)
    texts = [_LABEL.sub("", option, count=1) if labelled else option for option in options]
    return dict(zip(letters, texts, strict=True))


def matched_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names by VLMEvalKit's rule; None where it names none."""
    boxed = _BOXED.search(text)
    text = boxed[1] if boxed else text
    if any(refusal in text for refusal in _REFUSALS):
        return None
    words = text.translate(_NO_LETTERS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    return _by_text(text.lower(), options)


def _by_text(answer: str, options: Mapping[str, str]) -> str | None:
    """The one option whose text the answer holds; an answer twice as long as all options together is none."""
    if len(answer) > 2 * sum(map(len, options.values())):
        return None
    held = [letter for letter, text in options.items() if text and text.lower() in answer]
    return held[0] if len(held) == 1 else None


def _last_answer(response: str) -> str | None:
    """Found by `str.find`: a pattern is quadratic in a response that repeats the opening tag."""
    last, start = None, response.find(_OPENING)
    while start >= 0 and (end := response.find(_CLOSING, start)) >= 0:
        last = response[start + len(_OPENING) : end].strip()
        start = response.find(_OPENING, end)
    return last


def _holmes(response: str) -> str | None:
    """Video-Holmes's own rule."""
    said = _last_answer(response) or ""
    for forms in (("{} ", "{}:", "[{}"), ("{}",)):
        for letter in "ABCDEF":
            if any(form.format(letter) in said for form in forms):
                return letter
    return None


def _holmes_released(response: str) -> str | None:
    """The rule that OneThinker put in its place."""
    tagged = _last_answer(response)
    said = response.strip() if tagged is None else tagged
    if at_start := _AT_START.match(said):
        return at_start[1].upper()
    alone = _ALONE.findall(said)
    return alone[-1].upper() if alone else None


def _long_video(text: str) -> str | None:
    """LongVideoBench's rule."""
    found = re.search("[A-E]", _PHRASES.sub("", text.strip()))
    return found[0] if found else None


def letters_of(
    rule: OptionRule, response: str, text: str, options: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The letter that a response names in the released and in the standard form; `text` is its answer."""
    if rule == "video-holmes":
        return _holmes_released(response), _holmes(response)
    if rule == "longvideobench":
        return _long_video(text), _long_video(text)
    return first_letter(text), matched_letter(text, options)
