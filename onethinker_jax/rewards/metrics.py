"""Measures of agreement between a prediction and the truth: the one copy, for rewards and for evaluation.

Boxes are (x1, y1, x2, y2), spans (start, end) in seconds, points (x, y); a box or span whose end is not
after its start is empty and overlaps nothing. All functions are pure and return plain floats in [0, 1]
unless they say otherwise.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MAX_TEXT_CHARS = 16_384
"""ROUGE reads this much of either text: four characters for each of 4,096 response tokens."""

MRA_THRESHOLDS = tuple(0.50 + 0.05 * step for step in range(10))


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes; 0 when they do not overlap."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return min(overlap / union, 1.0) if union > 0 else 0.0


def span_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two (start, end) spans; 0 when they do not overlap."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    if overlap <= 0:
        return 0.0
    union = (a[1] - a[0]) + (b[1] - b[0]) - overlap
    return min(overlap / union, 1.0) if union > 0 else 0.0


def mean_box_iou(predicted: dict[int, Any], true: dict[int, Any]) -> float:
    """Mean box IoU over the true seconds; a second without a predicted box counts 0."""
    if not true:
        return 0.0
    total = sum(box_iou(predicted[second], box) for second, box in true.items() if second in predicted)
    return total / len(true)


def gaussian(distance: float, sigma: float) -> float:
    """G(d; σ) = exp(−d² / 2σ²)."""
    ratio = distance / sigma
    return math.exp(-0.5 * ratio * ratio)


def matched_distance(predicted: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> float:
    """Mean distance of equally many points under the matching of least total distance.

    Up to five points by trying every permutation, more by linear assignment. Raises ValueError when the
    counts differ or there are none. Result in the points' own units, not bounded by 1.
    """
    count = len(true)
    if count == 0 or len(predicted) != count:
        raise ValueError(f"cannot match {len(predicted)} points with {count}")
    table = [[math.hypot(p[0] - t[0], p[1] - t[1]) for t in true] for p in predicted]
    if count <= 5:
        orders = itertools.permutations(range(count))
        return min(sum(table[i][j] for i, j in enumerate(order)) for order in orders) / count
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table)
    return sum(table[i][j] for i, j in zip(rows, columns, strict=True)) / count


def mean_relative_accuracy(predicted: float, target: float) -> float:
    """MRA: mean over θ in {0.50, 0.55 … 0.95} of [|predicted − target| / |target| < 1 − θ].

    Evaluated in float32 with 1e-8 added to |target|, as the released code does; the paper's exact formula
    differs from it only where the error falls on a threshold to within float32 rounding.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        p, t = np.float32(predicted), np.float32(target)
        error = np.abs(p - t) / (np.abs(t) + np.float32(1e-8))
        limits = np.float32(1.0) - np.asarray(MRA_THRESHOLDS, dtype=np.float32)
        return float(np.mean(error < limits, dtype=np.float64))


def word_accuracy(predicted: str, reference: str) -> float:
    """clip(1 − word error rate, 0, 1), words split on white space, case kept.

    An empty reference is matched by an empty prediction only.
    """
    reference_words, predicted_words = reference.split(), predicted.split()
    if not reference_words:
        return 0.0 if predicted_words else 1.0
    if len(predicted_words) >= 2 * len(reference_words):
        return 0.0  # at least as many insertions as there are reference words
    if not predicted_words:
        return 0.0
    import jiwer

    rate = jiwer.wer(" ".join(reference_words), " ".join(predicted_words))
    return min(max(1.0 - float(rate), 0.0), 1.0)


@functools.lru_cache(maxsize=1)
def _stem() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return functools.lru_cache(maxsize=65_536)(PorterStemmer().stem)


def _rouge_tokens(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize

    return tokenize(text[:MAX_TEXT_CHARS], None)


def _stemmed(words: list[str], initials: set[str]) -> list[str]:
    """Porter stems of the words longer than three letters (ROUGE's rule) that begin with an initial.

    A stem keeps its word's first letter, so other words match nothing and need no stemming.
    """
    stem = _stem()
    return [stem(word) if len(word) > 3 and word[0] in initials else word for word in words]


def _f_measure(hits: int, predicted: int, reference: int) -> float:
    return 2.0 * hits / (predicted + reference) if hits else 0.0


def _common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, with one big integer as the bit row (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for index, word in enumerate(b):
        where[word] = where.get(word, 0) | (1 << index)
    full = (1 << len(b)) - 1
    row = full
    for word in a:
        match = where.get(word)
        if match is not None:
            both = row & match
            row = ((row + both) | (row - both)) & full
    return len(b) - row.bit_count()


def rouge_scores(predicted: str, reference: str) -> tuple[float, float, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L with Porter stemming.

    Equal to `rouge_score.rouge_scorer` (whose tokenizer it uses) on texts up to `MAX_TEXT_CHARS`; longer
    ones are cut there. Its own table for ROUGE-L takes seconds on a long answer, this takes milliseconds.
    """
    reference_words, predicted_words = _rouge_tokens(reference), _rouge_tokens(predicted)
    if not reference_words or not predicted_words:
        return 0.0, 0.0, 0.0
    initials = {word[0] for word in reference_words} & {word[0] for word in predicted_words}
    a, b = _stemmed(predicted_words, initials), _stemmed(reference_words, initials)

    def n_gram_f(n: int) -> float:
        first = Counter(zip(*(a[i:] for i in range(n)), strict=False))
        second = Counter(zip(*(b[i:] for i in range(n)), strict=False))
        hits = sum((first & second).values())
        return _f_measure(hits, max(len(a) - n + 1, 0), max(len(b) - n + 1, 0))

    return n_gram_f(1), n_gram_f(2), _f_measure(_common_subsequence(a, b), len(a), len(b))


def mean_rouge(predicted: str, reference: str) -> float:
    """Mean of the three `rouge_scores`: the weightless score of an open-ended answer."""
    return sum(rouge_scores(predicted, reference)) / 3.0


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """A COCO run-length encoding `{"size": [H, W], "counts": str | bytes | list}` as bool [H, W].

    Raises ValueError when it is not one: pycocotools itself reads and writes beyond its buffers on runs
    that do not add up.
    """
    from pycocotools import mask

    coco: Any = mask
    runs = run_lengths(rle)
    height, width = rle["size"]
    encoded = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return coco.decode(encoded).astype(bool)


def run_lengths(rle: dict[str, Any]) -> list[int]:
    """The run lengths of a COCO run-length encoding, which add up to its size; ValueError when it is not one."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"not a COCO RLE: its size is {size!r:.100}, not [H, W]")
    height, width = size
    if isinstance(counts, (str, bytes)):
        runs = _run_lengths(counts.encode("utf-8", "replace") if isinstance(counts, str) else counts)
    elif isinstance(counts, list):
        runs = counts
    else:
        raise ValueError(f"not a COCO RLE: its counts are {type(counts).__name__}")
    whole = all(isinstance(number, int) and number >= 0 for number in (height, width, *runs))
    if not whole or sum(runs) != height * width or not runs:
        raise ValueError(f"not a COCO RLE: its counts do not add up to its size {height!r}×{width!r}")
    return runs


def _run_lengths(counts: bytes) -> list[int]:
    """The run lengths of COCO's packed string: 5 bits a character, from the third on a difference."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("not a COCO RLE: its counts hold characters that are no run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value, shift = 0, 0
    if shift:
        raise ValueError("not a COCO RLE: its counts end in the middle of a run length")
    return runs


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask, bool [H, W], as a COCO RLE with a `str` of counts, ready for JSON."""
    from pycocotools import mask as coco_mask

    coco: Any = coco_mask
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    height, width = mask.shape
    return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two bool masks [H, W] of one size; two empty masks agree (1.0).

    Raises ValueError when the sizes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"masks differ in size: {a.shape} and {b.shape}")
    union = int(np.count_nonzero(a | b))
    return 1.0 if union == 0 else int(np.count_nonzero(a & b)) / union


def mean_mask_iou(masks: np.ndarray, rles: Sequence[dict[str, Any]]) -> float:
    """Mean `mask_iou` of predicted masks, bool [N, H, W], with N true ones as COCO RLEs of H×W.

    The reward and the region measure (J) of a prompted mask: N is 1 for an image. Raises ValueError when
    there are none, when the counts or sizes differ, or for a broken RLE.
    """
    if len(masks) != len(rles) or not rles:
        raise ValueError(f"{len(masks)} masks cannot be held against {len(rles)} true ones")
    overlaps = [mask_iou(mask, decode_rle(rle)) for mask, rle in zip(masks, rles, strict=True)]
    return sum(overlaps) / len(overlaps)
