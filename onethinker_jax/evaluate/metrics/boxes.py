"""One box: R@0.5, the share of boxes whose IoU with the true one is at least 0.5, and mIoU, their mean IoU.

The paper's numbers for RefCOCO are R@0.5; what OneThinker's script prints first is the mean IoU.
"""

from __future__ import annotations

from onethinker_jax.evaluate.metrics.answer import Answer, numbers
from onethinker_jax.evaluate.metrics.shares import Measured
from onethinker_jax.evaluate.metrics.spans import recalls
from onethinker_jax.rewards.metrics import box_iou


def measure(answer: Answer) -> Measured:
    """R@0.3, R@0.5, R@0.7 and mIoU of an answer; an answer without a box has the IoU 0."""
    given, true = numbers(answer.given.get("boxes"), 4), answer.true_values.box
    assert true is not None
    iou = 0.0 if given is None else box_iou(given, true)
    return recalls(iou, iou)
