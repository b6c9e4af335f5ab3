"""Answers to records and their scores: what evaluation and the trainer's held-out scoring share."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.records.record import Record, RecordError
from onethinker_jax.evaluate.answers.answerers import Question
from onethinker_jax.evaluate.answers.failures import ONCE
from onethinker_jax.evaluate.answers.local_model import LocalModel
from onethinker_jax.evaluate.answers.masks import SampledMasks
from onethinker_jax.evaluate.answers.scored import SCORES, AnswerScorer, answer_row
from onethinker_jax.files import whole_file
from onethinker_jax.responses import Sampler
from onethinker_jax.rewards.score import Score
from onethinker_jax.scoring import Scorer
from onethinker_jax.text_output import json_text


@dataclass(frozen=True)
class Prediction:
    """A record's answer. `mask_iou` is None unless the record has true masks."""

    record: Record
    response: str
    score: Score
    mask_iou: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer with what it is an answer to."""
        return answer_row(self.record, self.response, self.score, self.mask_iou)

    @classmethod
    def from_json(cls, row: Mapping[str, Any], record: Record) -> "Prediction":
        """The prediction again."""
        score = Score(**{name: row[name] for name in SCORES})
        return cls(record, row["response"], score, row["mask_iou"])


@dataclass(frozen=True)
class Means:
    """Of predictions: their scores, and the IoU of their masks where there are any."""

    overall: float
    accuracy: float
    format: float
    mask_iou: float | None


def evaluate(
    sampler: Sampler,
    params: nnx.State,
    records: Sequence[Record],
    scorer: Scorer,
    *,
    seed: int = 0,
    tell: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """One prediction a record, in order, of a `sampler` that draws one sample a prompt.

    `tell` hears how many records are answered.

    Raises PackingError naming a record that is too long, MediaError naming a file, RewardUnavailable.
    """
    model = LocalModel(sampler, params, seed)
    score = AnswerScorer(scorer.single(), SampledMasks(scorer), records, ONCE)
    found: dict[int, Prediction] = {}
    with closing(model.answer([Question(number, record) for number, record in enumerate(records)])) as parts:
        for part in parts:
            for one in score(part):
                number, made = one.answer.number, one.score
                assert made is not None
                found[number] = Prediction(records[number], one.answer.response, made, one.mask_iou)
            if tell is not None:
                tell(len(found))
    return [found[number] for number in range(len(records))]


def over_all(predictions: Sequence[Prediction]) -> Means:
    """Means over the predictions; `mask_iou` over those that have one."""

    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    masks = [prediction.mask_iou for prediction in predictions if prediction.mask_iou is not None]
    return Means(
        mean([prediction.score.overall for prediction in predictions]),
        mean([prediction.score.accuracy for prediction in predictions]),
        mean([prediction.score.format for prediction in predictions]),
        mean(masks) if masks else None,
    )


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """One JSON object a line; the file appears whole or not at all."""
    with whole_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json_text(prediction.to_json()) + "\n")


def read_predictions(path: Path, records: Sequence[Record]) -> list[Prediction]:
    """What `write_predictions` wrote for these records; raises RecordError when they are others."""
    with path.open(
        encoding="utf-8"
    ) as file:  # by line ends alone: a text may hold U+2028, where `splitlines` cuts
        rows = [json.loads(line) for line in file]
    if [row["problem_id"] for row in rows] != [record.problem_id for record in records]:
        raise RecordError(f"{path}: holds predictions for other records; have the held-out records changed?")
    return [Prediction.from_json(row, record) for record, row in zip(records, rows, strict=True)]
