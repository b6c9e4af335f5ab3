"""What is said of a mask: its box, points on it and beside it, and the rows that hold it as COCO RLE."""

from typing import Any

import numpy as np

from onethinker_jax.data_pipeline.worlds.stage import Stage
from onethinker_jax.rewards.metrics import encode_rle


def mask_box(mask: np.ndarray) -> list[int]:
    """[x1, y1, x2, y2] in 0-1000: extent of a bool [H, W] mask that is not empty; right, bottom exclusive."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [
        round(1000 * int(columns[0]) / width),
        round(1000 * int(rows[0]) / height),
        round(1000 * (int(columns[-1]) + 1) / width),
        round(1000 * (int(rows[-1]) + 1) / height),
    ]


def positive_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 inside a bool [H, W] mask: the middle of its columns at 1/4, 1/2 and 3/4."""
    columns = np.flatnonzero(mask.any(0))
    points = []
    for share in (0.25, 0.5, 0.75):
        x = int(columns[round(share * (len(columns) - 1))])
        rows = np.flatnonzero(mask[:, x])
        points.append(_to_thousand(x, int(rows[len(rows) // 2]), mask.shape))
    return points


def negative_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 outside a bool [H, W] mask: left, right, above, below its box, then corners.

    The first three of these inside the frame and off the object are taken, so that they can be learnt.
    Fewer than three come back if there are no more.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, x2, y1, y2 = int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])
    gap = 3 + (x2 - x1 + y2 - y1) // 8
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    places = [(x1 - gap, y), (x2 + gap, y), (x, y1 - gap), (x, y2 + gap)]
    places += [(x1 - gap, y1 - gap), (x2 + gap, y1 - gap), (x1 - gap, y2 + gap), (x2 + gap, y2 + gap)]
    inside = [(a, b) for a, b in places if 0 <= a < width and 0 <= b < height and not mask[b, a]]
    return [_to_thousand(a, b, mask.shape) for a, b in inside[:3]]


def mask_prompts(mask: np.ndarray) -> dict[str, list] | None:
    """Box, three points on the object and three beside it; None if no three lie beside it in the frame."""
    negative = negative_points(mask)
    if len(negative) < 3:
        return None
    return {"boxes": mask_box(mask), "positive_points": positive_points(mask), "negative_points": negative}


def mask_fields(scene: Stage, index: int) -> dict[str, Any]:
    """Resolution, frame rate (videos) and COCO RLE masks of the visible part of an actor, one a frame."""
    resolution = {"width": scene.width, "height": scene.height}
    if not scene.duration:
        rle = encode_rle(scene.visible_mask(index, 0.0))
        return {"resolution": resolution, "segmentation_output": {"segmentation_rle": rle}}
    frames = {f"{i:05d}": encode_rle(scene.visible_mask(index, t)) for i, t in enumerate(scene.times)}
    output = {"frames": list(frames), "segmentation_rle": frames}
    return {"resolution": resolution, "fps": scene.fps, "segmentation_output": output}


def _to_thousand(x: int, y: int, size: tuple[int, ...]) -> list[int]:
    return [round(1000 * (x + 0.5) / size[1]), round(1000 * (y + 0.5) / size[0])]
