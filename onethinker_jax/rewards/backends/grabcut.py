"""Masks without weights: OpenCV's GrabCut, seeded by a box and points and carried through a video.

GrabCut (Rother et al. 2004) fits colour mixtures to the inside and outside of the box and cuts the graph of
pixels between them. It tells a shape from a background of other colours and knows nothing of objects: it
stands in for SAM2 where there are no weights. In a video the key frame's mixtures are kept; each next frame,
forward and backward, is cut inside a search box around the last mask, and of what is found the part nearest
to that mask is the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from onethinker_jax.rewards.backends.types import MaskJob, MaskPrompt

MAX_SIDE = 320
"""Frames are cut at this size of their longer side; the mask is brought back to the full size."""

_MARGIN = 0.4  # of the box's size, on each side: where the background's colours are learned
_SEARCH = 0.6  # of the last mask's box, on each side: how far an object may move between two frames
_ITERATIONS = 5
_NO_MODEL = (1, 65)
_NO_RECT = (0, 0, 1, 1)  # asked for by the signature, unused with labels


class GrabCut:
    """`MaskBackend` by GrabCut. The same input gives the same mask; safe to call from several threads."""

    def segment(self, jobs: Sequence[MaskJob]) -> list[np.ndarray]:
        """Masks, bool [N, H, W] a job, made one after another."""
        return [_segment(job) for job in jobs]


def _segment(job: MaskJob) -> np.ndarray:
    """An image is a video of one frame."""
    frames, key_frame = job.frames, job.key_frame
    count, height, width = frames.shape[:3]
    masks = np.zeros((count, height, width), dtype=bool)
    key_mask, models = _cut_prompt(_shrunk(frames[key_frame]), job.prompt)
    masks[key_frame] = _enlarged(key_mask, height, width)
    if models is None or not key_mask.any():
        return masks
    for order in (range(key_frame + 1, count), range(key_frame - 1, -1, -1)):
        last = key_mask
        for index in order:
            mask = _cut_near(_shrunk(frames[index]), last, models)
            masks[index] = _enlarged(mask, height, width)
            if mask.any():  # an object that is gone may come back where it was last seen
                last = mask
    return masks


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)


def _enlarged(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    if mask.shape == (height, width):
        return mask
    return cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5


def _window(box: np.ndarray, margin: float, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in whole pixels: the box widened by a share of its size and 4 pixels."""
    more_x, more_y = margin * (box[2] - box[0]) + 4, margin * (box[3] - box[1]) + 4
    return (
        max(0, int(np.floor(box[0] - more_x))),
        max(0, int(np.floor(box[1] - more_y))),
        min(width, int(np.ceil(box[2] + more_x))),
        min(height, int(np.ceil(box[3] + more_y))),
    )


def _cut_prompt(
    image: np.ndarray, prompt: MaskPrompt
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """A mask [H, W] from box and points, and the colour mixtures (None where none could be fitted)."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    box, positive, negative = prompt.pixels(height, width)
    whole_box = prompt.whole_box(height, width)
    if whole_box is None:
        return mask, None
    left, top, right, bottom = whole_box
    x0, y0, x1, y1 = _window(box, _MARGIN, height, width)
    labels = np.full((height, width), cv2.GC_BGD, dtype=np.uint8)
    labels[top:bottom, left:right] = cv2.GC_PR_FGD
    radius = max(1, round(0.02 * max(right - left, bottom - top)))
    for points, label in ((positive, cv2.GC_FGD), (negative, cv2.GC_BGD)):
        for x, y in points:
            cv2.circle(labels, (int(x), int(y)), radius, int(label), thickness=-1)
    seeds = labels[y0:y1, x0:x1].copy()
    certain_background = seeds == cv2.GC_BGD
    if not certain_background.any():  # the box fills the frame: its rim is the best guess of background
        seeds[[0, -1], :] = cv2.GC_BGD
        seeds[:, [0, -1]] = cv2.GC_BGD
        certain_background = seeds == cv2.GC_BGD
    if certain_background.all():
        mask[top:bottom, left:right] = True
        return mask, None
    models = np.zeros(_NO_MODEL), np.zeros(_NO_MODEL)
    crop = np.ascontiguousarray(image[y0:y1, x0:x1])
    cv2.setRNGSeed(0)
    found, *_ = cv2.grabCut(crop, seeds, _NO_RECT, *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    mask[y0:y1, x0:x1] = (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)
    if not mask.any():  # nothing stands out from the background: the box is all that is known
        mask[top:bottom, left:right] = True
        return mask, None
    return mask, models


def _cut_near(image: np.ndarray, last: np.ndarray, models: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The mask [H, W] of the object that `last` showed in the frame before, by the same colours."""
    height, width = last.shape
    rows, columns = np.flatnonzero(last.any(1)), np.flatnonzero(last.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    x0, y0, x1, y1 = _window(box, _SEARCH, height, width)
    labels = np.full((y1 - y0, x1 - x0), cv2.GC_PR_FGD, dtype=np.uint8)
    cv2.setRNGSeed(0)
    found, *_ = cv2.grabCut(
        np.ascontiguousarray(image[y0:y1, x0:x1]),
        labels,
        _NO_RECT,
        models[0].copy(),
        models[1].copy(),
        1,
        cv2.GC_EVAL_FREEZE_MODEL,
    )
    inside = ((found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)).astype(np.uint8)
    mask = np.zeros(last.shape, dtype=bool)
    mask[y0:y1, x0:x1] = _nearest_part(inside, last[y0:y1, x0:x1])
    return mask


def _nearest_part(inside: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The connected part of `inside` that shares most pixels with `last`, else the one nearest to it.

    Parts under 5% of the last mask's area are noise; with no other part the object is gone.
    """
    count, parts, stats, centres = cv2.connectedComponentsWithStats(inside, connectivity=8)
    shared = np.bincount(parts[last], minlength=count)
    centre = np.argwhere(last).mean(0)[::-1]
    best, best_rank = 0, (-1.0, -np.inf)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] < 0.05 * np.count_nonzero(last):
            continue
        rank = (float(shared[part]), -float(np.linalg.norm(centres[part] - centre)))
        if rank > best_rank:
            best, best_rank = part, rank
    return parts == best if best else np.zeros(inside.shape, dtype=bool)
