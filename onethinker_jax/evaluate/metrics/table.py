"""Which metrics there are, what measures them for a task's answers, and how their sums make a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onethinker_jax.evaluate.metrics import accuracy, boxes, masks, spans, texts, tracks, tubes
from onethinker_jax.evaluate.metrics.answer import Answer, Measured
from onethinker_jax.evaluate.metrics.intervals import Value, ratio
from onethinker_jax.tasks import TASKS, Task, complete

METRICS: tuple[str, ...] = (
    *("accuracy", "R@0.3", "R@0.5", "R@0.7", "mIoU"),
    *("tIoU", "tIoU@0.5", "sIoU", "sIoU@0.5", "vIoU"),
    *("AO", "SR@0.5", "SR@0.75"),
    *("cIoU", "gIoU", "J", "F", "J&F"),
    *("WER", "ROUGE-L", "METEOR", "CIDEr", "BLEU-2"),
)
"""Every metric that one answer to a problem has, in the order of tables; of several answers there are more."""

LESS_IS_BETTER = frozenset({"WER"})

_OF_WRITTEN = ("accuracy", "ROUGE-L", "METEOR", "CIDEr", "BLEU-2")
_OF_TYPE: Mapping[str, tuple[tuple[str, ...], tuple[Callable[[Answer], Measured], ...]]] = {
    "multiple choice": (("accuracy",), (accuracy.measure,)),
    "numerical": (("accuracy",), (accuracy.measure,)),
    "regression": (("accuracy",), (accuracy.measure,)),
    "math": (("accuracy",), (accuracy.measure,)),
    "OCR": (("accuracy", "WER"), (accuracy.measure, texts.measure_read)),
    "open-ended": (_OF_WRITTEN, (accuracy.measure, texts.measure_written)),
    "temporal grounding": (("R@0.3", "R@0.5", "R@0.7", "mIoU"), (spans.measure,)),
    "spatial grounding": (("R@0.3", "R@0.5", "R@0.7", "mIoU"), (boxes.measure,)),
    "spatial-temporal grounding": (("tIoU", "tIoU@0.5", "sIoU", "sIoU@0.5", "vIoU"), (tubes.measure,)),
    "tracking": (("R@0.3", "R@0.5", "R@0.7", "AO", "SR@0.5", "SR@0.75"), (tracks.measure,)),
}
_OF_MASKS = {"image": ("cIoU", "gIoU"), "video": ("J", "F", "J&F")}

_TASKS: Mapping[Task, tuple[tuple[str, ...], tuple[Callable[[Answer], Measured], ...]]] = complete(
    "evaluate/metrics/table.py",
    {
        task: (_OF_MASKS[task.medium], (masks.measure,))
        if task.problem_type == "segmentation"
        else _OF_TYPE[task.problem_type]
        for task in TASKS
    },
    TASKS,
)
"""Task -> its metrics, and what measures an answer to it."""

_VALUES: Mapping[str, Value] = {"BLEU-2": texts.bleu}


def metrics_of(task: Task) -> tuple[str, ...]:
    """The metrics that answers to such problems have."""
    return _TASKS[task][0]


def value_of(metric: str) -> Value:
    """What makes a metric's value of the sums of its shares."""
    return _VALUES.get(metric, ratio)


def measure(answers: Sequence[Answer]) -> list[Measured]:
    """The shares of each answer in the metrics of its task, in order."""
    measured: list[Measured] = []
    for answer in answers:
        found: Measured = {}
        for of_answer in _TASKS[task_of(answer)][1]:
            found |= of_answer(answer)
        measured.append(found)
    written = [number for number, answer in enumerate(answers) if "CIDEr" in metrics_of(task_of(answer))]
    for number, found in zip(written, texts.measure_cider([answers[n] for n in written]), strict=True):
        measured[number] |= found
    return measured


def task_of(answer: Answer) -> Task:
    """The task of an answer's record."""
    record = answer.sample.record
    return Task.of(record.problem_type, record.data_type)
