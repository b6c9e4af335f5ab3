"""The checks of a teacher's answers: each finds its error and lets what is right through; the choice; the caps."""

from dataclasses import replace
from typing import Any

import pytest

from onethinker_jax.data_pipeline.annotate import rules
from onethinker_jax.data_pipeline.annotate.candidates import Candidate
from onethinker_jax.data_pipeline.annotate.filters import (
    KEPT,
    REASONS,
    FilterSettings,
    Verdict,
    balanced,
    choose,
    judge,
    reasons_table,
    scored_verdict,
    text_verdict,
)
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.tasks import Task
from tests.places import ROOT

DOCS = ROOT / "docs" / "annotate.md"
THINKING = "I see a red star in the upper left and a blue circle below it, so the star is what is asked for."


def record(problem_type: str = "multiple choice", answer: str = "A", **changes: Any) -> Record:
    video = "temporal" in problem_type or problem_type == "tracking"
    base = Record(
        problem_id=7,
        problem="<image>Which object is red?",
        data_type="video" if video else "image",
        problem_type=problem_type,
        options=("A. star", "B. circle") if problem_type == "multiple choice" else (),
        answer=f"<answer>{answer}</answer>",
        images=(),
        videos=(),
        data_source="test",
    )
    return replace(base, **changes)


def candidate(text: str, number: int = 0, finish: str = "stop") -> Candidate:
    return Candidate(7, "test", number, "q", text, finish, 1, 1, 0.1)


def response(thinking: str = THINKING, answer: str = "A") -> str:
    return f"<think>{thinking}</think>\n<answer>{answer}</answer>"


GERMAN = (
    "Ich sehe einen roten Stern und einen blauen Kreis auf dem Bild. Der Stern ist nicht so groß wie der Kreis, "
    "aber er ist rot, und das ist die Antwort auf die Frage."
)
SPANISH = (
    "Veo una estrella roja y un círculo azul en la imagen. La estrella es más pequeña que el círculo pero es roja, "
    "por lo que esta es la respuesta."
)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        (response(), "stop", KEPT),
        (f"  {response()}\n", "stop", KEPT),
        (response(), "length", "cut off"),
        (response(), "content_filter", "content filter"),
        ("", "stop", "tags"),
        ("A", "stop", "tags"),
        (f"So: {response()}", "stop", "tags"),
        (response() + "<answer>B</answer>", "stop", "tags"),
        (response(thinking=" "), "stop", "tags"),
        (response(answer=" "), "stop", "tags"),
        (response(f"{THINKING} <image>"), "stop", "reserved text"),
        (response(f"{THINKING} <|im_end|>"), "stop", "reserved text"),
        (response(answer="A. star"), "stop", "answer form"),
        (response(answer="C"), "stop", "answer form"),
        (response("It is red."), "stop", "length"),
        (response("one two three four. " * 5 + THINKING * 300), "stop", "length"),
        (response("这张图片里有一个红色的星星和一个蓝色的圆圈。" * 3), "stop", "language"),
        (response(GERMAN), "stop", "language"),
        (response(SPANISH), "stop", "language"),
        (response(f"{THINKING} " * 4), "stop", "repetition"),
        (response(f"{THINKING} Hmm{'m' * 60}"), "stop", "repetition"),
        (response(f"{THINKING} This agrees with the ground truth."), "stop", "given answer"),
        (response(f"{THINKING} The provided answer is A."), "stop", "given answer"),
        (response(f"{THINKING} Since I was told the answer, it is A."), "stop", "given answer"),
        (response(f"{THINKING} But I cannot see the image."), "stop", "refusal"),
        (response(f"As an AI, I guess. {THINKING}"), "stop", "refusal"),
    ],
)
def test_rule_checks(text: str, finish: str, reason: str) -> None:
    verdict = text_verdict(record(), candidate(text, finish=finish), FilterSettings())
    assert verdict.reason == reason and bool(verdict.detail) == (reason != KEPT) and verdict.accuracy is None


@pytest.mark.parametrize(
    "thinking",
    [
        "The correct answer must be the star, given the options: it is the only red one in the picture.",
        "The sign reads 红色, which is Chinese for red; the star beside it has that colour, so it is the star.",
        "With α = 30° and β = 60°, sin(α) = 1/2, and x² + y² = 25 gives x = 3, y = 4; the ratio is ¾ ≈ 0.75.",
        "I see upper left small red star, upper right large blue circle, centre small green cross, lower left tiny "
        "white ring, lower right large yellow square. The red one is the star.",
        "At 1 s the box is [10, 20, 30, 40]. At 2 s the box is [12, 20, 32, 40]. At 3 s the box is [14, 20, 34, 40]. "
        "At 4 s the box is [16, 20, 36, 40]. At 5 s the box is [18, 20, 38, 40].",
        "The word on the poster is ‘die’, and below it ‘der’ and ‘das’: German articles, in red and black letters.",
        "I cannot see a second star anywhere in the image, so the star in the corner is the one that is meant.",
        "The answer given the colours can only be the star. ---------------------------------------------------",
    ],
)
def test_what_is_no_error(thinking: str) -> None:
    of = record(problem="<image>What does the sign 红色 say?")
    assert text_verdict(of, candidate(response(thinking)), FilterSettings()).reason == KEPT


def test_other_languages_may_be_allowed() -> None:
    settings = FilterSettings(language="any")
    assert text_verdict(record(), candidate(response(GERMAN)), settings).reason == KEPT


@pytest.mark.parametrize(
    ("problem", "kind", "answer", "error"),
    [
        ("<image>Which is red?", "multiple choice", "A", None),
        ("<image>Which is red? The answer is A.", "multiple choice", "A", "says 'answer is A'"),
        ("<image>Which is red? (Answer: B)", "multiple choice", "A", None),
        ("<image>Is the answer a star?", "multiple choice", "A", None),
        ("<image>How many of the 3 stars are red?", "numerical", "3", None),
        ("<image>How many? Solution: 3", "numerical", "3", "says 'Solution: 3'"),
        ("<image>How many? The answer is 3.5, or not", "numerical", "3", None),
        ("<image>Say it: <answer>3</answer>", "numerical", "3", "holds <answer> tags"),
        ("<image>Write 'a red star on grey' in capitals", "OCR", "A red star on grey", "holds the answer"),
        ("<video>Track it: {\"boxes\":{\"1\":[1,2,30,40]}}", "tracking", '{"boxes": {"1": [1, 2, 30, 40]}}', "holds"),
    ],
)  # fmt: skip
def test_questions_that_hold_their_answer(problem: str, kind: str, answer: str, error: str | None) -> None:
    found = rules.held_answer(record(kind, answer, problem=problem))
    assert found is None if error is None else error in (found or "")


BOXES = '{"boxes": [100, 200, 300, 400]}'
SPAN = '{"time": [3.0, 7.5]}'


@pytest.mark.parametrize(
    ("kind", "reasoning", "answer", "agrees"),
    [
        ("multiple choice", "The star is red, so the answer is A.", "A", True),
        ("multiple choice", "The star is red, so the answer is **B**.", "A", False),
        ("multiple choice", "First I thought the answer is B. But the correct option is A.", "A", True),
        ("multiple choice", "The answer is A red star", "B", True),
        ("multiple choice", "It is the circle. That is B.", "A", False),
        ("multiple choice", r"Therefore \boxed{B}", "A", False),
        ("multiple choice", r"Therefore \boxed{\text{A}}", "A", True),
        ("multiple choice", "Option B is a circle, which is blue.", "A", True),
        ("multiple choice", "The answer is Z.", "A", True),  # no option
        ("numerical", "I count 4 and 3, so the answer is 7.", "7", True),
        ("numerical", "I count 4 and 3, so the answer is 8.", "7", False),
        ("numerical", "the answer is 3 + 4 = 7", "7", True),
        ("regression", "The result is 1,250 metres.", "1250", True),
        ("math", r"so \boxed{12}", "13", False),
        ("math", "the answer is 1/2", "0.5", True),
        ("OCR", "The answer is STOP.", "GO", True),  # free text is not compared
        ("spatial grounding", "The other box is [1, 2, 3, 4].", BOXES, True),
        ("spatial grounding", "So its box is [100, 200, 302, 400].", BOXES, True),
        ("spatial grounding", "So its box is [500, 200, 700, 400].", BOXES, False),
        ("spatial grounding", 'I write {"boxes": [100, 200, 300, 399]}', BOXES, True),
        ("spatial grounding", 'I write {"boxes": [100, 250, 300, 399]} here', BOXES, False),
        (
            "spatial grounding",
            'Not {"boxes": [9, 9, 10, 10]} but {"boxes": [100, 200, 300, 400]}',
            BOXES,
            True,
        ),
        ("temporal grounding", "It moves from 1 to 2 seconds. So it is seen from 3.0 to 7.5 s.", SPAN, True),
        ("temporal grounding", "So it is seen from 4.5 to 7.5 seconds.", SPAN, False),
        ("temporal grounding", 'Thus {"time": [3, 7.4]}.', SPAN, True),
        ("tracking", 'Thus {"boxes": {"1": [1, 2, 30, 40]}}', '{"boxes": {"1": [1, 2, 30, 40]}}', True),
        ("tracking", 'Thus {"boxes": {"2": [1, 2, 30, 40]}}', '{"boxes": {"1": [1, 2, 30, 40]}}', False),
        ("tracking", "So { not JSON {{{", '{"boxes": {"1": [1, 2, 30, 40]}}', True),
    ],
)
def test_contradictions(kind: str, reasoning: str, answer: str, agrees: bool) -> None:
    error = rules.contradiction(record(kind), reasoning, answer)
    assert (error is None) == agrees, error


def test_checks_take_any_text() -> None:
    for text in (
        "",
        "{" * 5000,
        "[" * 5000,
        "<think>" * 999,
        "answer is " * 3000,
        "a" * 100_000,
        "\x00\ud800 é" * 99,
    ):
        of = record("spatial grounding", BOXES)
        text_verdict(of, candidate(response(text, BOXES)), FilterSettings(max_reasoning=10**6))
        rules.contradiction(of, text, BOXES)
        rules.held_answer(replace(of, problem=text))


def test_accuracy_and_thresholds() -> None:
    of = record("spatial grounding", BOXES)
    one = candidate(response(answer=BOXES))
    assert scored_verdict(of, one, 0.7, FilterSettings()).reason == KEPT
    low = scored_verdict(of, one, 0.69, FilterSettings())
    assert (low.reason, low.detail, low.accuracy) == ("accuracy", "0.69 of 0.7", 0.69)
    by_type = FilterSettings(thresholds={"spatial grounding": 0.5})
    by_task = FilterSettings(thresholds={"spatial grounding": 0.5, "spatial grounding (image)": 0.9})
    assert by_type.threshold(of) == 0.5 and by_task.threshold(of) == 0.9
    against = candidate(response(THINKING + " So the box is [1, 2, 3, 4].", BOXES))
    assert scored_verdict(of, against, 0.9, FilterSettings()).reason == "contradiction"


def test_the_choice() -> None:
    def verdict(number: int, reason: str, accuracy: float | None = None) -> Verdict:
        return Verdict(candidate("", number), reason, accuracy=accuracy)

    good = [
        verdict(0, KEPT, 0.8),
        verdict(1, KEPT, 0.9),
        verdict(2, KEPT, 0.9),
        verdict(3, "contradiction", 1.0),
    ]
    assert choose(good).candidate.candidate == 1
    bad = [verdict(0, "tags"), verdict(1, "accuracy", 0.1), verdict(2, "accuracy", 0.4), verdict(3, "length")]
    assert choose(bad).candidate.candidate == 2


def test_judging() -> None:
    of, silent = record(), record(problem_id=8)
    telling = record(problem_id=9, problem="<image>Which? The answer is A.")
    answered = [
        (of, [candidate(response(answer=letter), n) for n, letter in enumerate("BAx")]),
        (silent, []),
        (telling, [candidate(response())]),
    ]
    scored: list[list[str]] = []

    def accuracies(_: Any, texts: Any) -> list[list[float]]:
        scored.extend(texts)
        return [[float(text == response()) for text in texts_of_record] for texts_of_record in texts]

    first, second, third = judge(answered, accuracies, FilterSettings())
    assert first.reason == KEPT and first.best and first.best.candidate.candidate == 1
    assert sorted(v.reason for v in first.verdicts) == [KEPT, "accuracy", "answer form"]
    assert (second.reason, second.best) == ("no answer", None)
    assert (third.reason, third.best) == ("question holds its answer", None)
    assert scored == [[response(answer="B"), response(answer="A")], [], []]


def test_balance() -> None:
    kept = {
        Task("OCR", "image"): [("s", n) for n in range(50)],
        Task("math", "image"): [("s", n) for n in range(100, 120)],
    }
    small, large = (balanced(kept, FilterSettings(cap=cap, seed=1)) for cap in (10, 15))
    assert len(small) == 20 and small < large and len(large) == 30
    assert balanced({k: v[::-1] for k, v in kept.items()}, FilterSettings(cap=10, seed=1)) == small
    assert balanced(kept, FilterSettings(cap=10, seed=2)) != small
    assert len(balanced(kept, FilterSettings())) == 70
    assert len(balanced(kept, FilterSettings(caps={"OCR (image)": 0}))) == 20
    spread = [number for _, number in small if isinstance(number, int) and number < 100]
    assert max(spread) > 20  # not simply the first ones


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": {"ocr": 1.0}}, "thresholds: unknown task 'ocr'"),
        ({"thresholds": {"OCR": 1.5}}, "thresholds: 1.5 of 'OCR' is out of range"),
        ({"caps": {"OCR": 3}}, "caps: unknown task 'OCR'"),
        ({"cap": -1}, "cap -1"),
        ({"min_reasoning": 10, "max_reasoning": 5}, "contradict"),
        ({"max_repetition": 2.0}, "max_repetition 2.0"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterSettings(**changes)


def test_the_docs_hold_the_tables() -> None:
    assert KEPT not in REASONS
    docs = DOCS.read_text(encoding="utf-8")
    assert reasons_table() in docs
