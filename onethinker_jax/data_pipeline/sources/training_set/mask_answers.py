"""The answer of a segmentation record that has only masks: a box, points on the object and points beside it.

Training scores these directly, as the paper does; without an answer a record is scored by the masks that the reward
service makes. Of a video the frame with most of the object in it is taken, at its time. Points on the object are
those furthest from its edge and from each other; points beside it likewise, around its box.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from onethinker_jax.data_pipeline.records.true_masks import TrueMasks
from onethinker_jax.data_pipeline.sources.reading.pixels import thousandths
from onethinker_jax.rewards.metrics import decode_rle, run_lengths
from onethinker_jax.text_output import json_text

POINTS = 3
_AROUND = 0.25
"""How far from the box points beside the object are sought, as a share of its sides."""


def mask_answer(masks: TrueMasks) -> str:
    """The answer in its tags; "" where the mask is empty, or leaves nothing beside the object."""
    areas = [sum(run_lengths(rle)[1::2]) for rle in masks.rles]
    best = int(np.argmax(areas))
    if not areas[best]:
        return ""
    mask = decode_rle(masks.rles[best])
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    negative = _points(_beside(mask, box))
    if len(negative) < POINTS:
        return ""
    positive = _points(mask)
    positive += positive[:1] * (POINTS - len(positive))  # an object of one or two pixels
    answer: Mapping[str, Any] = {
        **({} if masks.fps is None else {"time": round(masks.times[best], 2)}),
        "boxes": thousandths(box, width, height),
        "positive_points": [_thousandth(point, width, height) for point in positive],
        "negative_points": [_thousandth(point, width, height) for point in negative],
    }
    return f"<answer>{json_text(answer)}</answer>"


def _beside(mask: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Bool [H, W]: the places near the box that are not the object; all that are not, where these are few."""
    x1, y1, x2, y2 = box
    wide, high = max(8, round(_AROUND * (x2 - x1))), max(8, round(_AROUND * (y2 - y1)))
    near = np.zeros_like(mask)
    near[max(int(y1) - high, 0) : int(y2) + high, max(int(x1) - wide, 0) : int(x2) + wide] = True
    found = near & ~mask
    return found if found.sum() >= POINTS else ~mask


def _points(region: np.ndarray) -> list[tuple[int, int]]:
    """At most three (x, y) of a bool [H, W] region: each as far as can be from its edge and from those before."""
    padded = np.pad(region.astype(np.uint8), 1)
    room = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    ys, xs = np.indices(region.shape)
    found: list[tuple[int, int]] = []
    while len(found) < POINTS and room.max() > 0:
        y, x = np.unravel_index(int(np.argmax(room)), room.shape)
        found.append((int(x), int(y)))
        room = np.minimum(room, np.hypot(xs - x, ys - y) / 2)
    return found


def _thousandth(point: tuple[int, int], width: int, height: int) -> list[int]:
    return [round(1000 * (point[0] + 0.5) / width), round(1000 * (point[1] + 0.5) / height)]
