"""Masks: cIoU and gIoU of an image's, J, F and J&F of a video's.

cIoU is the sum of all intersections over the sum of all unions, gIoU the mean IoU. An answer that prompts no mask is
left out of the released form and has an empty mask in the standard one; two empty masks have an IoU of 0 in the
released form and of 1 in the standard one.

J is the mean IoU over a video's frames, F that of the boundaries (`boundaries`), J&F the mean of the two; all are means
over the videos' expressions. The released form counts the frames that have a true mask, the standard one every frame
of the row's list: one without a true mask has an empty one. A frame without a predicted mask, as all are of an answer
that prompts none, scores 0 in the released form, whatever is true; in the standard one its mask is empty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onethinker_jax.evaluate.metrics.answer import Answer
from onethinker_jax.evaluate.metrics.boundaries import released_f, standard_f
from onethinker_jax.evaluate.metrics.shares import Forms, Measured
from onethinker_jax.rewards.metrics import decode_rle, mask_iou
from onethinker_jax.tasks import is_video

IMAGE = ""
"""The frame name of an image's mask."""


def measure(answer: Answer) -> Measured:
    """An image answer's cIoU and gIoU, or a video answer's J, F and J&F."""
    return _of_video(answer) if is_video(answer.sample.record.data_type) else _of_image(answer)


def _of_image(answer: Answer) -> Measured:
    ((_, predicted, true, _),) = _pairs(answer)
    shared, covered = int(np.count_nonzero(predicted & true)), int(np.count_nonzero(predicted | true))
    whole = (float(shared), float(covered))
    if answer.masks is None:
        return {"cIoU": Forms(None, whole), "gIoU": Forms(None, (mask_iou(predicted, true), 1.0))}
    alone = (shared / covered if covered else 0.0, 1.0)
    return {"cIoU": Forms(whole, whole), "gIoU": Forms(alone, (mask_iou(predicted, true), 1.0))}


def _of_video(answer: Answer) -> Measured:
    released, standard = [], []
    given = answer.masks or {}
    for name, predicted, true, is_there in _pairs(answer):
        iou = mask_iou(predicted, true)
        standard.append((iou, standard_f(predicted, true)))
        if is_there and name not in given:
            released.append((0.0, 0.0))
        elif is_there:
            either = bool((predicted | true).any())
            released.append((iou if either else 0.0, released_f(predicted, true)))
    (j, f), (j_standard, f_standard) = (np.mean(frames, axis=0).tolist() for frames in (released, standard))
    return {
        "J": Forms((j, 1.0), (j_standard, 1.0)),
        "F": Forms((f, 1.0), (f_standard, 1.0)),
        "J&F": Forms(((j + f) / 2, 1.0), ((j_standard + f_standard) / 2, 1.0)),
    }


def _pairs(answer: Answer) -> Iterator[tuple[str, np.ndarray, np.ndarray, bool]]:
    """Name, predicted and true mask of every frame, bool [H, W], and whether the row has that true mask."""
    truth = answer.sample.record.segmentation
    assert truth is not None
    empty = np.zeros(truth.size, dtype=bool)
    given = answer.masks or {}
    true = dict(zip(truth.names, truth.rles, strict=True))
    for name in dict.fromkeys((*truth.listed, *truth.names)):
        yield (
            name,
            decode_rle(dict(given[name])) if name in given else empty,
            decode_rle(true[name]) if name in true else empty,
            name in true,
        )
