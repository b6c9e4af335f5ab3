"""Problems with their answers measured: what totals are taken of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from onethinker_jax.data_pipeline.records.record import task_of
from onethinker_jax.data_pipeline.sources.sample import Sample
from onethinker_jax.evaluate.benchmarks.types import OptionRule
from onethinker_jax.evaluate.judges.types import AnswerJudge
from onethinker_jax.evaluate.metrics import table
from onethinker_jax.evaluate.metrics.accuracy import Readings, needs_judge, read
from onethinker_jax.evaluate.metrics.answer import Answer, Rle
from onethinker_jax.evaluate.metrics.judged import judge_answers
from onethinker_jax.evaluate.metrics.shares import Measured, Share, mean_share
from onethinker_jax.evaluate.results.clusters import QUESTION
from onethinker_jax.evaluate.results.line_masks import masks_of
from onethinker_jax.evaluate.results.lines import Line, PredictionError, Problem
from onethinker_jax.rewards.answers import extract_answer, parse_structured
from onethinker_jax.tasks import TABLE, Task

MakeMasks = Callable[[Sequence[tuple[Line, Sample]]], Sequence[dict[str, Rle]]]
"""Lines whose answers prompt masks, with their samples -> the masks by frame name, in order."""


@dataclass(frozen=True, eq=False)
class ScoredAnswer:
    """An answer with what it adds to each metric."""

    line: Line
    answer: Answer
    measured: Measured

    @cached_property
    def readings(self) -> Readings | None:
        """What it was read as; None of a structured answer."""
        return None if self.answer.is_structured else read(self.answer)

    @property
    def prompts_nothing(self) -> bool:
        """Whether it is a segmentation of an image that prompted no mask."""
        return "cIoU" in self.measured and self.answer.masks is None

    @property
    def decided_by(self) -> str:
        """Who read an answer out of the response: "rule" or "judge"; "unread" where nobody did."""
        if self.answer.verdict is not None:
            return "judge"
        readings = self.readings
        if readings is None:
            return "rule" if self.answer.given else "unread"
        return "unread" if readings.standard.answer is None or needs_judge(self.answer) else "rule"


@dataclass(frozen=True, eq=False)
class ScoredProblem:
    """A problem with its answers that could be scored, in the order of their sample numbers; none where all failed."""

    problem: Problem
    answers: tuple[ScoredAnswer, ...]

    @property
    def sample(self) -> Sample:
        """The sample of the data set."""
        return self.problem.sample

    @property
    def task(self) -> Task:
        """The task of its record."""
        return task_of(self.sample.record)

    @property
    def groups(self) -> dict[str, str]:
        """What results are also given by; always with the task."""
        return {"task": str(self.task), **self.sample.groups}

    @property
    def rotation_of(self) -> Any:
        """The question that it is a rotation of; itself where it is none."""
        record = self.sample.record
        return self.sample.facts.get(QUESTION, record.problem_id)

    @property
    def video(self) -> str:
        """The first video of its record; "" where it has none."""
        return str(next(iter(self.sample.record.videos), ""))

    def shares(self, metric: str, form: str) -> list[Share]:
        """What each answer adds to a form of a metric, those left out of the form aside."""
        return [
            share
            for one in self.answers
            if metric in one.measured and (share := getattr(one.measured[metric], form)) is not None
        ]

    def share(self, metric: str, form: str) -> Share | None:
        """The mean of the answers' shares; None where no answer has one. An answer left out adds nothing."""
        return mean_share(self.shares(metric, form), len(self.answers))


def score(
    problems: Sequence[Problem],
    make_masks: MakeMasks,
    judge: AnswerJudge | None = None,
    option_rule: OptionRule = "vlmevalkit",
    tell: Callable[[int, int], None] | None = None,
) -> list[ScoredProblem]:
    """The problems with every answer measured.

    `make_masks` is asked for the masks that lines do not bring, the judge of what no rule reads; `option_rule` is the
    benchmark's. `tell` hears of how many answers how many are measured.

    Raises PredictionError: a line's masks are malformed. What `make_masks` raises.
    """
    pairs = [(line, problem.sample) for problem in problems for line in problem.answered]
    masks = _all_masks(pairs, make_masks)
    answers = [
        Answer(sample, line.response, found, option_rule=option_rule)
        for (line, sample), found in zip(pairs, masks, strict=True)
    ]
    if judge is not None:
        answers = judge_answers(answers, judge)
    measured = table.measure(answers, None if tell is None else partial(tell, len(answers)))
    scored = iter(
        ScoredAnswer(line, answer, found)
        for (line, _), answer, found in zip(pairs, answers, measured, strict=True)
    )
    return [ScoredProblem(problem, tuple(next(scored) for _ in problem.answered)) for problem in problems]


def _all_masks(pairs: Sequence[tuple[Line, Sample]], make_masks: MakeMasks) -> list[dict[str, Rle] | None]:
    """The masks of each line: its own; made where it has none and its answer prompts them; else None."""
    found: list[dict[str, Rle] | None] = []
    wanted = []
    for number, (line, sample) in enumerate(pairs):
        record, masks = sample.record, None
        if TABLE[record.problem_type].judged_by == "mask":
            if record.segmentation is None:
                raise PredictionError(f"{record}: segmentation_output is missing, which scoring masks needs")
            own = masks_of(line, record.segmentation, record.data_type)
            masks = None if own is None else dict(own)
            given = extract_answer(line.response)
            prompts = parse_structured(given, record.problem_type, record.data_type) is not None
            if masks is None and prompts:
                wanted.append(number)
        found.append(masks)
    if wanted:
        made = make_masks([pairs[number] for number in wanted])
        for number, masks in zip(wanted, made, strict=True):
            found[number] = masks
    return found
