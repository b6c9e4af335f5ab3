"""A time span with a box a second: tIoU of the span, sIoU and vIoU of the boxes.

sIoU, which is OneThinker's alone, is the mean box IoU over the seconds that answer and truth both have: who answers
few seconds is measured by few. vIoU, the benchmarks' own, divides the sum of the box IoUs by the seconds that either
has. tIoU is one in both forms. X@0.5 is the share of answers whose X is at least 0.5.
"""

from __future__ import annotations

from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.shares import Forms, Measured, both
from onethinker_jax.evaluate.metrics.spans import answered_iou
from onethinker_jax.evaluate.metrics.tracks import given_boxes
from onethinker_jax.rewards.metrics import box_iou

LEAST = 0.5


def measure(answer: Answer) -> Measured:
    """tIoU, tIoU@0.5, sIoU, sIoU@0.5 and vIoU of an answer."""
    time = answered_iou(answer) or 0.0
    true, given = answer.true_values.boxes, given_boxes(answer)
    overlaps = [box_iou(given[second], box) for second, box in true.items() if second in given]
    shared = sum(overlaps) / len(overlaps) if overlaps else 0.0
    return {
        "tIoU": both(time),
        f"tIoU@{LEAST}": both(float(time >= LEAST)),
        "sIoU": Forms((shared, 1.0), None),
        f"sIoU@{LEAST}": Forms((float(shared >= LEAST), 1.0), None),
        "vIoU": Forms(None, (sum(overlaps) / len(true.keys() | given.keys()), 1.0)),
    }
