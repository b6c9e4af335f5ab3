"""Answers -> their rewards and masks, as they come: what one sample spoils, the others of its part do not feel."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.errors import SkippableError
from onethinker_jax.evaluate.answers.answerers import Answer
from onethinker_jax.evaluate.answers.failures import Failed, Tries
from onethinker_jax.rewards.score import Score
from onethinker_jax.scoring import Scorer

SCORES = tuple(field.name for field in fields(Score))


@dataclass(frozen=True)
class MaskResult:
    """What the masks of a segmentation answer come to: their mean IoU, and themselves as COCO RLEs where kept."""

    iou: float
    rles: Mapping[str, Any] | None = None


class MaskMaker(Protocol):
    """Makes the masks that segmentation answers prompt, all in one call."""

    def __call__(self, records: Sequence[Record], responses: Sequence[str]) -> list[MaskResult | None]:
        """A result for each record and response, in order; None where a response prompts no mask."""
        ...


@dataclass(frozen=True)
class Scored:
    """An answer with its reward; `masks` of a segmentation answer that was scored, `score` None where it was not."""

    answer: Answer
    score: Score | None = None
    mask_iou: float | None = None
    masks: MaskResult | None = None


@dataclass(frozen=True)
class AnswerScorer:
    """Scores parts of the answers: rewards in one call, masks in one."""

    scorer: Scorer
    """One for responses without a group."""
    make_masks: MaskMaker
    records: Sequence[Record]
    """By the numbers of the answers."""
    tries: Tries

    def __call__(self, part: Sequence[Answer]) -> list[Scored]:
        """The part with its scores, in its order; a failed answer stays one.

        Raises RewardUnavailable; what one answer raises only where `tries` says so.
        """
        asked = [answer for answer in part if answer.failed is None]
        try:
            scored = iter(self._scored(asked))
        except SkippableError:
            scored = iter([self._alone(answer) for answer in asked])
        return [Scored(answer) if answer.failed is not None else next(scored) for answer in part]

    def _alone(self, answer: Answer) -> Scored:
        found = self.tries.of(self.records[answer.number], lambda: self._scored([answer])[0])
        if isinstance(found, Failed):
            return Scored(replace(answer, response="", failed=found.reason))
        return found

    def _scored(self, part: Sequence[Answer]) -> list[Scored]:
        records = [self.records[answer.number] for answer in part]
        scores = self.scorer(records, [[answer.response] for answer in part]) if part else []
        with_masks = [number for number, record in enumerate(records) if record.segmentation is not None]
        chosen = [records[number] for number in with_masks], [part[number].response for number in with_masks]
        made = dict(zip(with_masks, self.make_masks(*chosen) if with_masks else [], strict=True))
        results = []
        for number, (answer, (score,)) in enumerate(zip(part, scores, strict=True)):
            masks = made.get(number)
            iou = None if number not in made else 0.0 if masks is None else masks.iou
            results.append(Scored(answer, score, iou, masks))
        return results


def answer_row(record: Record, response: str, score: Score | None, mask_iou: float | None) -> dict[str, Any]:
    """What a line of predictions says of an answer; without a score where it was not scored."""
    return {
        "problem_id": record.problem_id,
        "task": str(task_of(record)),
        "response": response,
        "answer": record.answer,
        **(dict.fromkeys(SCORES) if score is None else asdict(score)),
        "mask_iou": mask_iou,
    }
