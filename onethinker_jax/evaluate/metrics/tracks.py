"""One object's boxes by second: AO, SR and R@t.

Released: a video's overlap is its mean IoU over the true seconds, the first included, a missing one counting 0. AO is
the mean over videos; SR@t and R@t are the share of videos whose overlap is at least t.

Standard, as the GOT-10k toolkit has it: the frames of all videos are pooled, the first of each left out, since its
box is given, and those in which the object cannot be seen; boxes are clipped to the picture. AO is the mean IoU over
frames, SR@t the share of frames with an IoU above t. R@t is not defined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onethinker_jax.evaluate.metrics.answer import Answer, numbers
from onethinker_jax.evaluate.metrics.shares import Forms, Measured
from onethinker_jax.rewards.metrics import box_iou

RECALLS = (0.3, 0.5, 0.7)
SUCCESSES = (0.5, 0.75)
COVER = "cover"
"""The fact that says how much of the object is seen in each second, {second: 0 to 8}; without it all are seen."""
_SIDE = 1000.0
_EMPTY = (0.0, 0.0, 0.0, 0.0)


def measure(answer: Answer) -> Measured:
    """AO, SR@0.5, SR@0.75, R@0.3, R@0.5, R@0.7 of an answer."""
    true = answer.true_values.boxes
    given = given_boxes(answer)
    overlaps = [box_iou(given[second], box) if second in given else 0.0 for second, box in true.items()]
    video = sum(overlaps) / len(overlaps)
    frames = _toolkit_overlaps(given, true, answer.sample.facts.get(COVER))
    count = float(len(frames))

    def pooled(total: float) -> tuple[float, ...] | None:
        return (total, count) if frames else None

    measured = {"AO": Forms((video, 1.0), pooled(sum(frames)))}
    for least in SUCCESSES:
        above = float(sum(overlap > least for overlap in frames))
        measured[f"SR@{least}"] = Forms((float(video >= least), 1.0), pooled(above))
    for least in RECALLS:
        measured[f"R@{least}"] = Forms((float(video >= least), 1.0), None)
    return measured


def given_boxes(answer: Answer) -> dict[int, tuple[float, ...]]:
    """The boxes of the answer's whole seconds; what is no box is an empty one, which overlaps nothing."""
    boxes = answer.given.get("boxes")
    if not isinstance(boxes, dict):
        return {}
    return {
        int(second): numbers(box, 4) or _EMPTY
        for second, box in boxes.items()
        if second.isdecimal() and len(second) < 10 and str(int(second)) == second
    }


def _toolkit_overlaps(
    given: Mapping[int, Sequence[float]],
    true: Mapping[int, Sequence[float]],
    cover: Mapping[int, float] | None,
) -> list[float]:
    """The IoU of each frame that GOT-10k's toolkit counts."""
    _, *others = sorted(true)
    seen = [second for second in others if cover is None or cover.get(second, 0) > 0]
    return [
        box_iou(_clipped(given[second]), _clipped(true[second])) if second in given else 0.0
        for second in seen
    ]


def _clipped(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The box as the toolkit clips it: its corner into the picture, then its sides to what is left of the picture."""
    x, y = (min(max(number, 0.0), _SIDE) for number in box[:2])
    width, height = min(max(box[2] - box[0], 0.0), _SIDE - x), min(max(box[3] - box[1], 0.0), _SIDE - y)
    return x, y, x + width, y + height
