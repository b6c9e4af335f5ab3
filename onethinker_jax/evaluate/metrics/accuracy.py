"""Accuracy of the text tasks, by problem type: right or wrong, or how right in 0 to 1.

Released, as OneThinker's script means it: a choice by the first character of the answer; numbers equal when both are
rounded to two decimals, commas dropped; mathematics by math-verify; estimates by their mean relative accuracy, 0 where
the truth is 0; read text by 1 - WER; open-ended answers by the mean F of ROUGE-1, 2 and L.

Standard differs for choices, which VLMEvalKit's rule reads (`options`); for mathematics, where an answer is right too
that is equivalent to the truth by the rewards' paper variant, since math-verify finds no mathematics in a letter or a
word; for numbers of MathVista, which are equal as whole numbers or to its precision. An answer equivalent to another
that the benchmark accepts (the fact `answers`) is right, and a judge's verdict counts where there is one. What is
left to a judge has no standard form without one: MathVerse's answers, of which the released form is what the rule
would give, and Video-MMLU's, which have no released form either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.options import choices, first_letter, letters_of
from onethinker_jax.evaluate.metrics.shares import Forms, Measured, ratio
from onethinker_jax.rewards.equivalence.equivalence import (
    math_equal,
    math_equivalent,
    plain_number,
)
from onethinker_jax.rewards.grading import grade_answer
from onethinker_jax.rewards.metrics import mean_rouge, word_accuracy
from onethinker_jax.tasks import TABLE, complete, is_structured

METRIC = "accuracy"
CAPTION_QUESTIONS, JUDGED_QUESTION, ANSWER_TYPE = "questions", "question_for_eval", "answer_type"
"""The facts that a sample of Video-MMLU, of MathVerse and of MathVista has."""
THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
DECIMALS = 2
ACCEPTED = "answers"
"""The fact that holds all answers that a benchmark accepts, where there are several."""


@dataclass(frozen=True)
class Reading:
    """What an answer was read as in one form, and how right that is; None: the rule reads nothing of it."""

    answer: str | None
    accuracy: float


@dataclass(frozen=True)
class Readings:
    """Both forms of one answer."""

    released: Reading
    standard: Reading


def read(answer: Answer) -> Readings:
    """What the answer says and how right it is, by both forms."""
    found = _OF_TYPE[answer.problem_type](answer)
    verdict = answer.verdict
    if verdict is None:
        return found
    return Readings(found.released, Reading(verdict.answer, float(ratio(np.array(verdict.standard)))))


def needs_judge(answer: Answer) -> bool:
    """Whether the benchmark leaves all of its answers to a judge."""
    facts = answer.sample.facts
    return bool(facts.get(CAPTION_QUESTIONS) or facts.get(JUDGED_QUESTION))


def measure(answer: Answer) -> Measured:
    """The accuracy of an answer."""
    verdict = answer.verdict
    if answer.sample.facts.get(CAPTION_QUESTIONS):
        forms = Forms(None, None) if verdict is None else Forms(verdict.released, verdict.standard)
        return {METRIC: forms}
    if answer.sample.facts.get(JUDGED_QUESTION):
        by_rule = _OF_TYPE[answer.problem_type](answer).standard
        return {METRIC: Forms((by_rule.accuracy, 1.0), None if verdict is None else verdict.standard)}
    found = read(answer)
    return {METRIC: Forms((found.released.accuracy, 1.0), (found.standard.accuracy, 1.0))}


def mean_relative_accuracy(given: float, true: float) -> float:
    """The share of θ in 0.50, 0.55 … 0.95 for which |given − true| / |true| < 1 − θ; 0 where the truth is 0."""
    if abs(true) < 1e-12:
        return 0.0
    error = abs(given - true) / abs(true)
    return sum(error < 1.0 - least for least in THRESHOLDS) / len(THRESHOLDS)


def _choice(answer: Answer) -> Readings:
    wanted = first_letter(answer.truth)
    options = choices(answer.sample.record.options)
    first, matched = letters_of(answer.option_rule, answer.response, answer.text, options)
    return Readings(
        Reading(first, float(first is not None and first == wanted)),
        Reading(matched, float(matched is not None and matched == wanted)),
    )


def _number(answer: Answer) -> Readings:
    given, wanted = plain_number(answer.text), plain_number(answer.truth)
    if given is None or wanted is None or not math.isfinite(given):
        return _alike(None, 0.0)
    facts = answer.sample.facts
    equal = round(given, DECIMALS) == round(wanted, DECIMALS)
    standard = equal
    if facts.get(ANSWER_TYPE) == "integer":
        standard = int(given) == int(wanted)
    elif facts.get(ANSWER_TYPE) == "float" and (places := plain_number(str(facts.get("precision", "")))):
        standard = round(given, int(places)) == round(wanted, int(places))
    read_as = repr(round(given, DECIMALS))
    return Readings(Reading(read_as, float(equal)), Reading(read_as, float(standard)))


def _accepted(answer: Answer, readings: Readings, *more: str) -> Readings:
    """The readings, the standard one right also where the answer is equivalent to one that the benchmark accepts."""
    truths = (*more, *answer.sample.facts.get(ACCEPTED, ()))
    if readings.standard.accuracy or not any(math_equivalent(answer.text, truth) for truth in truths):
        return readings
    return Readings(readings.released, Reading(answer.text, 1.0))


def _estimate(answer: Answer) -> Readings:
    given, wanted = plain_number(answer.text), plain_number(answer.truth)
    if given is None or wanted is None or not math.isfinite(given):
        return _alike(None, 0.0)
    return _alike(repr(given), mean_relative_accuracy(given, wanted))


def _mathematics(answer: Answer) -> Readings:
    equal = math_equal(answer.text, answer.truth)
    return _alike(answer.text, float(grade_answer(answer.text, answer.truth) if equal is None else equal))


def _alike(read_as: str | None, accuracy: float) -> Readings:
    """One reading in both forms; an answer of no words is unread."""
    reading = Reading(read_as or None, accuracy)
    return Readings(reading, reading)


_OF_TYPE: Mapping[str, Callable[[Answer], Readings]] = complete(
    "evaluate/metrics/accuracy.py",
    {
        "multiple choice": _choice,
        "numerical": lambda answer: _accepted(answer, _number(answer)),
        "regression": _estimate,
        "OCR": lambda answer: _alike(answer.text, word_accuracy(answer.text, answer.truth)),
        "math": lambda answer: _accepted(answer, _mathematics(answer), answer.truth),
        "open-ended": lambda answer: _alike(answer.text, mean_rouge(answer.text, answer.truth)),
    },
    (name for name in TABLE if not is_structured(name)),
)
"""What reads an answer of a problem type."""
