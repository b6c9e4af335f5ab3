"""Time spans: R@t, the share of spans whose IoU with the true one is at least t, and mIoU, their mean IoU.

Both forms agree but for a benchmark whose samples have a `duration` among their facts (ANet-RTL): there the standard
form takes the whole video for the span of an answer without one.
"""

from __future__ import annotations

from collections.abc import Sequence

from onethinker_jax.evaluate.metrics.answer import Answer, numbers
from onethinker_jax.evaluate.metrics.shares import Forms, Measured

THRESHOLDS = (0.3, 0.5, 0.7)


def span_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two (start, end) spans, 0 when they do not overlap.

    The union of spans that overlap reaches from the first start to the last end. It is computed so as in the published
    script, whose rounding decides where an IoU is at a threshold.
    """
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    return overlap / (max(a[1], b[1]) - min(a[0], b[0])) if overlap > 0 else 0.0


def answered_iou(answer: Answer) -> float | None:
    """The IoU of the answer's span with the true one; None where it has no span."""
    given, true = numbers(answer.given.get("time"), 2), answer.true_values.span
    assert true is not None
    return None if given is None else span_iou(given, true)


def measure(answer: Answer) -> Measured:
    """R@0.3, R@0.5, R@0.7 and mIoU of an answer."""
    found = answered_iou(answer)
    released = found or 0.0
    standard = released
    duration = answer.sample.facts.get("duration")
    if found is None and duration:
        true = answer.true_values.span
        assert true is not None
        standard = span_iou((0.0, float(duration)), true)
    return recalls(released, standard)


def recalls(released: float, standard: float) -> Measured:
    """R@t and mIoU of an IoU."""
    measured = {
        f"R@{least}": Forms((float(released >= least), 1.0), (float(standard >= least), 1.0))
        for least in THRESHOLDS
    }
    return {**measured, "mIoU": Forms((released, 1.0), (standard, 1.0))}
