"""Which of a teacher's answers become training examples: the thresholds, the order of the checks, the choice.

OneThinker's own thresholds are not published; those in `tasks.TABLE` are ours.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from onethinker_jax.data_pipeline.annotate import rules
from onethinker_jax.data_pipeline.annotate.candidates import Candidate, Key
from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.rewards.answers import extract_answer, extract_thinking
from onethinker_jax.tasks import PROBLEM_TYPES, TABLE, TASKS, Task

REASONS: dict[str, str] = {
    "question holds its answer": "the question gives the answer away: never asked",
    "no answer": "the teacher gave none, after all tries: the next run asks again",
    "cut off": "the answer ended at the length limit",
    "content filter": "the endpoint held the answer, or a part of it, back",
    "tags": "not <think>…</think><answer>…</answer>, each tag once, both with something inside",
    "reserved text": "holds <image>, <video>, the text of a special token, or what is no Unicode text",
    "answer form": "not as a true answer is written: more than a letter, other JSON, a box outside 0–1000 …",
    "language": "the reasoning is not in English",
    "length": "the reasoning is too short or too long",
    "repetition": "the reasoning repeats itself",
    "given answer": "the reasoning speaks of an answer that it was given",
    "refusal": "the teacher says that it sees nothing, or speaks of itself",
    "accuracy": "below the task's threshold",
    "contradiction": "the answer is not what the reasoning concludes",
    "balance": "good, but beyond its task's cap",
}
"""Why a record is not in the set, in the order of the checks."""

KEPT = ""
_SCORED_AT_ONCE = 64  # records
_NOT_WHOLE = {"length": "cut off", "max_tokens": "cut off", "content_filter": "content filter"}


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """What a good answer is."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Other thresholds than the table's: --thresholds OCR 0.8 "segmentation (video)" 0.6"""
    language: Literal["en", "any"] = "en"
    """The language that the reasoning must be in."""
    min_reasoning: int = 40
    """Characters."""
    max_reasoning: int = 16_000
    """Characters."""
    max_repetition: float = 0.3
    """Share of the reasoning's runs of eight words that stood in it before."""
    cap: int | None = None
    """Records of a task in the balanced set, at most."""
    caps: dict[str, int] = field(default_factory=dict)
    """Other caps, by task: --caps "OCR (image)" 5000"""
    seed: int = 0
    """The seed of the choice that caps make."""

    def __post_init__(self) -> None:
        names = tuple(map(str, TASKS))
        for name, known in (("thresholds", (*PROBLEM_TYPES, *names)), ("caps", names)):
            for task, value in getattr(self, name).items():
                if task not in known:
                    raise ValueError(f"{name}: unknown task {task!r} (known: {', '.join(known)})")
                if value < 0 or (name == "thresholds" and value > 1):
                    raise ValueError(f"{name}: {value} of {task!r} is out of range")
        if self.cap is not None and self.cap < 0:
            raise ValueError(f"cap {self.cap} must not be negative")
        if not 0 <= self.min_reasoning <= self.max_reasoning:
            raise ValueError(
                f"min_reasoning {self.min_reasoning} and max_reasoning {self.max_reasoning} contradict each other"
            )
        if not 0 <= self.max_repetition <= 1:
            raise ValueError(f"max_repetition {self.max_repetition} must be within 0 and 1")

    def threshold(self, record: Record) -> float:
        """The least accuracy that the record's task asks for."""
        kind = record.problem_type
        given = self.thresholds.get(str(task_of(record)), self.thresholds.get(kind))
        return TABLE[kind].threshold.accuracy if given is None else given

    def cap_of(self, task: Task) -> float:
        """The most records that a task keeps; infinite without a cap."""
        cap = self.caps.get(str(task), self.cap)
        return float("inf") if cap is None else cap


@dataclass(frozen=True)
class Verdict:
    """A candidate judged: `reason` is KEPT or one of REASONS, `detail` says more."""

    candidate: Candidate
    reason: str
    detail: str = ""
    accuracy: float | None = None  # share of the task's most; None: a rule check came before

    def to_json(self) -> dict[str, Any]:
        """Without the text, which is in the file of candidates."""
        names = ("problem_id", "data_source", "candidate")
        about = {name: getattr(self.candidate, name) for name in names}
        return {**about, "reason": self.reason, "detail": self.detail, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Judged:
    """A record, what became of it, the candidate that stands for it, and all the others."""

    record: Record
    reason: str  # KEPT or one of REASONS
    best: Verdict | None  # None: not asked, or not answered
    verdicts: Sequence[Verdict]


Accuracies = Callable[[Sequence[Record], Sequence[Sequence[str]]], Sequence[Sequence[float]]]
"""Records and responses to each -> accuracies, as shares of the most that the record's task gives."""


def judge(
    answered: Iterable[tuple[Record, Sequence[Candidate]]], accuracies: Accuracies, settings: FilterSettings
) -> Iterator[Judged]:
    """Judges records with their candidates, in order; only candidates whose text has no error are scored."""
    rest = iter(answered)
    while part := list(islice(rest, _SCORED_AT_ONCE)):
        checked = [
            [] if rules.held_answer(record) else [text_verdict(record, one, settings) for one in candidates]
            for record, candidates in part
        ]
        sound = [
            [verdict.candidate for verdict in verdicts if verdict.reason == KEPT] for verdicts in checked
        ]
        records = [record for record, _ in part]
        scores = accuracies(records, [[candidate.text for candidate in candidates] for candidates in sound])
        for record, text_verdicts, clean, shares in zip(records, checked, sound, scores, strict=True):
            verdicts = [verdict for verdict in text_verdicts if verdict.reason != KEPT]
            verdicts += [scored_verdict(record, *pair, settings) for pair in zip(clean, shares, strict=True)]
            if verdicts:
                best = choose(verdicts)
                yield Judged(record, best.reason, best, verdicts)
            else:
                reason = "question holds its answer" if rules.held_answer(record) else "no answer"
                yield Judged(record, reason, None, ())


def text_verdict(record: Record, candidate: Candidate, settings: FilterSettings) -> Verdict:
    """The verdict by what the answer's text alone tells; KEPT says that no rule check found an error."""
    text = candidate.text
    if candidate.finish_reason in _NOT_WHOLE:
        return Verdict(
            candidate, _NOT_WHOLE[candidate.finish_reason], f"finish_reason {candidate.finish_reason}"
        )
    if error := rules.tag_error(text):
        return Verdict(candidate, "tags", error)
    reasoning, answer = extract_thinking(text) or "", extract_answer(text) or ""
    checks = (
        ("reserved text", lambda: rules.reserved_error(text)),
        ("answer form", lambda: rules.form_error(record, answer)),
        ("language", lambda: rules.language_error(record, reasoning) if settings.language == "en" else None),
        ("length", lambda: rules.length_error(reasoning, settings.min_reasoning, settings.max_reasoning)),
        ("repetition", lambda: rules.repetition_error(reasoning, settings.max_repetition)),
        ("given answer", lambda: rules.given_answer_error(reasoning)),
        ("refusal", lambda: rules.refusal_error(text)),
    )
    for reason, check in checks:
        if error := check():
            return Verdict(candidate, reason, error)
    return Verdict(candidate, KEPT)


def scored_verdict(
    record: Record, candidate: Candidate, accuracy: float, settings: FilterSettings
) -> Verdict:
    """The verdict on a candidate without an error in its text, by its accuracy (0 to 1) and its consistency."""
    if accuracy < settings.threshold(record) - 1e-9:
        return Verdict(candidate, "accuracy", f"{accuracy:.2f} of {settings.threshold(record):g}", accuracy)
    text = candidate.text
    error = rules.contradiction(record, extract_thinking(text) or "", extract_answer(text) or "")
    return Verdict(candidate, "contradiction" if error else KEPT, error or "", accuracy)


def choose(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict that stands for a record: the best good candidate, else the one that came furthest.

    Best is the most accurate. Of equals the one asked first is taken, so that neither short nor long reasoning
    is preferred. Raises ValueError when there are none.
    """
    order = {KEPT: len(REASONS), **{reason: rank for rank, reason in enumerate(REASONS)}}
    return max(verdicts, key=lambda v: (order[v.reason], v.accuracy or 0.0, -v.candidate.candidate))


def balanced(kept: Mapping[Task, Collection[Key]], settings: FilterSettings) -> set[Key]:
    """Which of each task's kept records go into the balanced set.

    Drawn by a hash of seed and identity: the choice does not depend on the order of the records, and a larger
    cap keeps all that a smaller one kept.
    """

    def lot(key: Key) -> bytes:
        return hashlib.blake2b(repr((settings.seed, *key)).encode(), digest_size=8).digest()

    chosen: set[Key] = set()
    for task, keys in kept.items():
        cap = settings.cap_of(task)
        chosen.update(keys if len(keys) <= cap else sorted(keys, key=lot)[: int(cap)])
    return chosen


def reasons_table() -> str:
    """Why records are dropped, as a table in Markdown."""
    return "\n".join(
        ("| reason | what it means |", "|---|---|", *(f"| {r} | {m} |" for r, m in REASONS.items()))
    )
