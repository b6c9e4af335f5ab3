"""What a judge says of answers: an option that no rule reads, a worked answer's value, a caption.

Which way an answer goes follows from its sample's facts (`accuracy`): Video-MMLU, MathVerse and MathVista have their
own; any other answer is shown to the judge only where it names no option. What the judge does not answer stays unread:
no option is ever drawn by lot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from onethinker_jax.evaluate.judges.types import (
    NO_OPTION,
    AnswerJudge,
    CaptionItem,
    CaptionQuestionItem,
    ChoiceItem,
    ComparisonItem,
    Judgement,
    ValueItem,
)
from onethinker_jax.evaluate.metrics.accuracy import ANSWER_TYPE, CAPTION_QUESTIONS, JUDGED_QUESTION, read
from onethinker_jax.evaluate.metrics.answer import Answer, Verdict
from onethinker_jax.evaluate.metrics.options import choices, first_letter
from onethinker_jax.evaluate.metrics.texts import REFERENCES


def judge_answers(answers: Sequence[Answer], judge: AnswerJudge) -> list[Answer]:
    """The answers, in order, each with the judge's verdict where it was asked and said something."""
    judged = list(answers)
    for way in (_captions, _worked, _values, _options):
        chosen = [number for number, answer in enumerate(answers) if _way_of(answer) is way]
        if chosen:
            verdicts = way([answers[number] for number in chosen], judge)
            for number, verdict in zip(chosen, verdicts, strict=True):
                judged[number] = replace(answers[number], verdict=verdict)
    captions = [number for number, answer in enumerate(answers) if answer.sample.facts.get(REFERENCES)]
    if captions:
        items = [CaptionItem(answers[number].truth, answers[number].text) for number in captions]
        for number, judgement in zip(captions, judge.relevances(items), strict=True):
            judged[number] = replace(judged[number], relevance=judgement.value)
    return judged


def _way_of(answer: Answer) -> Callable[[Sequence[Answer], AnswerJudge], list[Verdict | None]] | None:
    """How the judge is asked of an answer; None: it is not."""
    facts = answer.sample.facts
    if answer.is_structured:
        return None
    if facts.get(CAPTION_QUESTIONS):
        return _captions
    if facts.get(JUDGED_QUESTION):
        return _worked
    if read(answer).standard.answer is not None:
        return None
    if answer.problem_type == "multiple choice":
        return _options
    return _values if facts.get(ANSWER_TYPE) else None


def _options(answers: Sequence[Answer], judge: AnswerJudge) -> list[Verdict | None]:
    """Which option each of them means."""
    options = [choices(answer.sample.record.options) for answer in answers]
    items = [
        ChoiceItem(_question(answer), of_answer, answer.text)
        for answer, of_answer in zip(answers, options, strict=True)
    ]
    found = []
    for answer, judgement in zip(answers, judge.choices(items), strict=True):
        letter = judgement.value
        right = letter is not None and letter != NO_OPTION and letter == first_letter(answer.truth)
        found.append(None if letter is None else Verdict(letter, (float(right), 1.0)))
    return found


def _values(answers: Sequence[Answer], judge: AnswerJudge) -> list[Verdict | None]:
    """The value that the judge takes out of each of them, compared as the rule compares."""
    items = [ValueItem(_question(answer), answer.text, _form(answer.sample.facts)) for answer in answers]
    found = []
    for answer, judgement in zip(answers, judge.values(items), strict=True):
        if judgement.value is None:
            found.append(None)
            continue
        reading = read(replace(answer, response=f"<answer>{judgement.value}</answer>")).standard
        found.append(Verdict(judgement.value, (reading.accuracy, 1.0)))
    return found


def _worked(answers: Sequence[Answer], judge: AnswerJudge) -> list[Verdict | None]:
    """MathVerse: the judge takes out the answer, and compares it with the true one where the texts differ."""
    items = [ValueItem(str(answer.sample.facts[JUDGED_QUESTION]), answer.text) for answer in answers]
    taken = [judgement.value for judgement in judge.values(items)]
    equal: dict[int, Judgement[bool]] = {
        number: Judgement(True)
        for number, (value, answer) in enumerate(zip(taken, answers, strict=True))
        if value is not None and value.strip() == answer.truth.strip()
    }
    unsettled = [number for number, value in enumerate(taken) if value is not None and number not in equal]
    compared = judge.equals(
        [
            ComparisonItem(str(answers[n].sample.facts[JUDGED_QUESTION]), answers[n].truth, str(taken[n]))
            for n in unsettled
        ]
    )
    equal.update(zip(unsettled, compared, strict=True))
    found: list[Verdict | None] = []
    for number, value in enumerate(taken):
        right = equal[number].value if number in equal else None
        found.append(None if value is None or right is None else Verdict(value, (float(right), 1.0)))
    return found


def _captions(answers: Sequence[Answer], judge: AnswerJudge) -> list[Verdict | None]:
    """Video-MMLU: the judge answers each question from the caption, then says whether its answer is the true one.

    The share counts the questions that are right and those that were judged; `released` is the last question alone,
    which is all that VLMEvalKit keeps of a video.
    """
    asked = [
        (number, str(pair["question"]), str(pair["answer"]))
        for number, answer in enumerate(answers)
        for pair in answer.sample.facts[CAPTION_QUESTIONS]
    ]
    given = judge.caption_answers(
        [CaptionQuestionItem(answers[n].text, question) for n, question, _ in asked]
    )
    there = [index for index, judgement in enumerate(given) if judgement.value is not None]
    matches = judge.matches(
        [ComparisonItem(asked[index][1], asked[index][2], str(given[index].value)) for index in there]
    )
    right: list[list[float | None]] = [[] for _ in answers]
    by_index = dict(zip(there, matches, strict=True))
    for index, (number, _, _) in enumerate(asked):
        match = by_index[index].value if index in by_index else None
        right[number].append(None if match is None else float(match.correct))
    found: list[Verdict | None] = []
    for values in right:
        judged = [value for value in values if value is not None]
        last = (values[-1], 1.0) if values[-1] is not None else None
        found.append(Verdict("", (sum(judged), float(len(judged))), last) if judged else None)
    return found


def _question(answer: Answer) -> str:
    return str(answer.sample.facts.get("question") or answer.sample.record.problem)


def _form(facts: Any) -> str:
    """What MathVista asks for, in words."""
    kind = facts[ANSWER_TYPE]
    precision = facts.get("precision")
    if kind == "float" and precision and math.isfinite(float(precision)):
        return f"a number with {int(float(precision))} decimals"
    return {"integer": "an integer", "float": "a number", "list": "a list"}.get(kind, "a text")
