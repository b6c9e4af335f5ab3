"""F, the agreement of two masks' boundaries: the F measure of the boundary pixels that lie near the other boundary.

Standard, as the DAVIS challenge has it: the boundary runs between pixels that differ from their neighbour to the right,
below or below right; near is within a disk of ceil(0.008 · diagonal) pixels. Released: the boundary is the mask's
pixels that have a neighbour outside, of eight; near is within a square of max(1, round(0.0075 · diagonal)) pixels.
"""

from __future__ import annotations

import math

import numpy as np

STANDARD_RADIUS = 0.008
RELEASED_RADIUS = 0.0075


def standard_f(predicted: np.ndarray, true: np.ndarray) -> float:
    """F of two masks, bool [H, W], as DAVIS defines it; two masks without a boundary agree."""
    radius = math.ceil(STANDARD_RADIUS * math.hypot(*true.shape))
    (predicted, true), edges = _cropped(predicted, true)
    a, b = (_between_pixels(mask, edges) for mask in (predicted, true))
    if not len(a) or not len(b):
        return float(not len(a) and not len(b))
    return _f(*_near(a, b, radius, disk=True))


def released_f(predicted: np.ndarray, true: np.ndarray) -> float:
    """F of two masks, bool [H, W], as OneThinker's script computes it; two empty masks agree."""
    radius = max(1, round(RELEASED_RADIUS * math.hypot(*true.shape)))
    (predicted, true), _ = _cropped(predicted, true)
    a, b = _inner_pixels(predicted), _inner_pixels(true)
    if not len(a) or not len(b):
        return float(not len(a) and not len(b))
    return _f(*_near(a, b, radius, disk=False))


def _f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(a: np.ndarray, b: np.ndarray, radius: int, *, disk: bool) -> tuple[float, float]:
    """The share of the points `a`, int [N, 2], that have one of `b` within the radius, and the other way round."""
    from scipy.spatial import KDTree

    norm = 2 if disk else np.inf
    shares = []
    for points, others in ((a, b), (b, a)):
        distance, _ = KDTree(others).query(points, p=norm, distance_upper_bound=radius + 0.5)
        shares.append(float(np.mean(distance <= radius)))
    return shares[0], shares[1]


def _cropped(a: np.ndarray, b: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[bool, bool]]:
    """Both masks without the rows and columns that are empty in both, but for one around what is there.

    The two flags say whether the last row and the last column that are left are the picture's own.
    """
    either = a | b
    slices, ends = [], []
    for axis, size in enumerate(either.shape):
        filled = np.flatnonzero(either.any(axis=1 - axis))
        start, stop = (max(filled[0] - 1, 0), min(filled[-1] + 2, size)) if len(filled) else (0, 0)
        slices.append(slice(start, stop))
        ends.append(stop == size)
    window = tuple(slices)
    return (a[window], b[window]), (ends[0], ends[1])


def _between_pixels(mask: np.ndarray, edges: tuple[bool, bool]) -> np.ndarray:
    """The boundary's pixels, int [N, 2]; on the picture's last row or column only the neighbour along it counts."""
    if not mask.size:
        return np.zeros((0, 2), dtype=np.int64)
    right, below, across = (np.zeros_like(mask) for _ in range(3))
    right[:, :-1] = mask[:, 1:]
    below[:-1] = mask[1:]
    across[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ across)
    last_row, last_column = edges
    if last_row:
        boundary[-1] = mask[-1] ^ right[-1]
    if last_column:
        boundary[:, -1] = mask[:, -1] ^ below[:, -1]
    if last_row and last_column:
        boundary[-1, -1] = False
    return np.argwhere(boundary)


def _inner_pixels(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels of which one of eight neighbours is outside it, int [N, 2]; beyond the picture is outside."""
    padded = np.pad(mask, 1)
    inside = mask.copy()
    height, width = mask.shape
    for down in range(3):
        for along in range(3):
            inside &= padded[down : down + height, along : along + width]
    return np.argwhere(mask & ~inside)
