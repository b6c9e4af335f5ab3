"""What measures the answers to a task, and how the sums of their shares make a metric's value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onethinker_jax.evaluate.metrics import accuracy, boxes, masks, spans, texts, tracks, tubes
from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.shares import Measured, Value, ratio
from onethinker_jax.tasks import TABLE, complete, of_answer

LESS_IS_BETTER = frozenset({"WER"})
"""Metrics that count errors."""
RATINGS = frozenset({"G-Eval"})
"""Metrics that are ratings from 1 to 5; all others are fractions, CIDEr's up to 10."""

_WRITTEN = "open-ended"
_OF_TYPE: Mapping[str, tuple[Callable[[Answer], Measured], ...]] = complete(
    "evaluate/metrics/table.py",
    {
        **dict.fromkeys(of_answer("letter", "number", "estimate", "result"), (accuracy.measure,)),
        "OCR": (accuracy.measure, texts.measure_read),
        _WRITTEN: (accuracy.measure, texts.measure_written),
        "temporal grounding": (spans.measure,),
        "spatial grounding": (boxes.measure,),
        "spatial-temporal grounding": (tubes.measure,),
        "tracking": (tracks.measure,),
        "segmentation": (masks.measure,),
    },
    TABLE,
)
"""Problem type -> what measures one answer to it."""

_VALUES: Mapping[str, Value] = {"BLEU-2": texts.bleu}


def value_of(metric: str) -> Value:
    """What makes a metric's value of the sums of its shares."""
    return _VALUES.get(metric, ratio)


def measure(answers: Sequence[Answer], tell: Callable[[int], None] | None = None) -> list[Measured]:
    """The shares of each answer in the metrics of its task, in order; `answers` are all that a corpus consists of.

    `tell` hears how many are measured.
    """
    measured: list[Measured] = []
    for answer in answers:
        if tell is not None:
            tell(len(measured))
        found: Measured = {}
        for of_answer_alone in _OF_TYPE[answer.problem_type]:
            found |= of_answer_alone(answer)
        measured.append(found)
    written = [number for number, answer in enumerate(answers) if answer.problem_type == _WRITTEN]
    for number, found in zip(written, texts.measure_cider([answers[n] for n in written]), strict=True):
        measured[number] |= found
    return measured
