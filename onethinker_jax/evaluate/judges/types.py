"""What metrics ask of a judge, and what they get: a judgement an item, in order, whatever the endpoint does.

A judge never raises for an item and never guesses: where it gave nothing that can be read, the judgement has no
value and says why. Whoever aggregates counts such items apart ("unread").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

NO_OPTION = "Z"
"""The judge read the response, and it means none of the options: a wrong answer, not an unread one."""


@dataclass(frozen=True)
class Judgement(Generic[T]):
    """What the judge says of one item."""

    value: T | None
    """None: unread."""
    reason: str = ""
    """Why there is no value: the judge is down, or what it wrote cannot be read."""


@dataclass(frozen=True)
class ChoiceItem:
    """A response to a multiple-choice question whose letter no rule could find."""

    question: str
    options: Mapping[str, str]
    """Letter -> text; one letter a key, "Z" is not among them."""
    response: str


@dataclass(frozen=True)
class ValueItem:
    """A response out of which the final answer is to be taken: MathVista, the first stage of MathVerse."""

    question: str
    response: str
    form: str = ""
    """What the answer is, such as "an integer", "a number with 2 decimals", "a list", "an option's letter"."""


@dataclass(frozen=True)
class ComparisonItem:
    """An answer held against the true one: the second stages of MathVerse and Video-MMLU."""

    question: str
    truth: str
    answer: str


@dataclass(frozen=True)
class CaptionQuestionItem:
    """A question that is to be answered from a caption alone: the first stage of Video-MMLU."""

    caption: str
    question: str


@dataclass(frozen=True)
class CaptionItem:
    """A caption held against the reference caption: the G-Eval of MMSci."""

    reference: str
    caption: str


@dataclass(frozen=True)
class Match:
    """Whether an answer agrees with the truth, and how well on a scale of 0 to 5."""

    correct: bool
    rating: int


class AnswerJudge(Protocol):
    """Judges many items at once: a call returns when all are judged or given up. Answers come from a cache if there."""

    error: str | None
    """One line where the endpoint could not be used, such as "http://host/v1 cannot be reached (...)"; from then on
    only items in the cache have values. The same command goes on from there."""

    def choices(self, items: Sequence[ChoiceItem]) -> list[Judgement[str]]:
        """The letter of the option that each response means, or `NO_OPTION`."""
        ...

    def values(self, items: Sequence[ValueItem]) -> list[Judgement[str]]:
        """The final answer of each response as text; "" where the response gives none."""
        ...

    def equals(self, items: Sequence[ComparisonItem]) -> list[Judgement[bool]]:
        """Whether each answer is the true one."""
        ...

    def caption_answers(self, items: Sequence[CaptionQuestionItem]) -> list[Judgement[str]]:
        """A short answer to each question, from its caption alone."""
        ...

    def matches(self, items: Sequence[ComparisonItem]) -> list[Judgement[Match]]:
        """How well each answer agrees with the truth."""
        ...

    def relevances(self, items: Sequence[CaptionItem]) -> list[Judgement[int]]:
        """How relevant each caption is to its reference, 1 to 5."""
        ...

    def settings(self) -> dict[str, Any]:
        """For the result: the model's name, the sampling, the prompts' digests, how many were asked, cached, unread."""
        ...
