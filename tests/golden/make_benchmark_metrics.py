"""Benchmarks' metrics by packages that others wrote, into benchmark_metrics.json: what ours are held against.

    pip install --no-deps got10k==0.1.3 pycocoevalcap==1.2 vos-benchmark==0.1.0 shapely   # an environment of its own
    pip install numpy scikit-image opencv-python-headless
    python tests/golden/make_benchmark_metrics.py

Boxes are (x, y, width, height) in pixels, as GOT-10k's toolkit has them; masks are COCO's runs; captions are in lower
case without punctuation, so that every tokenizer splits them at the spaces. The test needs none of these packages.
"""

import json
from pathlib import Path

import numpy as np
from got10k.utils.metrics import rect_iou  # pyright: ignore[reportMissingImports]
from pycocoevalcap.bleu.bleu import Bleu  # pyright: ignore[reportMissingImports]
from pycocoevalcap.cider.cider import Cider  # pyright: ignore[reportMissingImports]
from vos_benchmark.evaluator import Evaluator  # pyright: ignore[reportMissingImports]

OUT = Path(__file__).parent / "benchmark_metrics.json"
PICTURE = 1280, 720
CAPTIONS = [
    ("a man rides a brown horse along the beach", "a man is riding a brown horse on the beach"),
    ("two dogs play with a red ball in the garden", "two dogs are playing with a ball in a garden"),
    ("the plot shows the growth of cells over time", "growth of the cells in the two media over time"),
    ("a child eats an apple", "a small child is eating an apple at the table while her mother reads a book"),
    ("an empty street at night", "cars on a busy road in the rain"),
    ("a a a a man man", "a man looks at a man"),
    ("horse", "a man is riding a brown horse on the beach"),
    ("a microscope image of the cells in blue and green", "cells in blue and green under a microscope"),
]


def tracks() -> dict:
    """AO and SR of the toolkit over three sequences, some boxes beyond the picture, some frames without the object."""
    random, width, height = np.random.default_rng(1), *PICTURE
    sequences, pooled = [], []
    for length in (6, 9, 4):
        corner = random.uniform([0, 0], [width * 0.6, height * 0.6], (length, 2)).round(1)
        size = random.uniform(60, 400, (length, 2)).round(1)
        size = np.minimum(size, np.array(PICTURE) - corner).round(1)
        truth = np.concatenate([corner, size], axis=1)
        moved = (truth + random.normal(0, 60, truth.shape)).round(1)
        moved[1, :2] = -80.0, -30.5
        moved[2, 2:] = 3000.0, 2000.0
        cover = random.integers(0, 9, length)
        cover[1:3] = 5, 0
        overlap = rect_iou(moved[1:].copy(), truth[1:].copy(), bound=PICTURE)
        pooled.append(overlap[cover[1:] > 0])
        sequences.append({"true": truth.tolist(), "given": moved.tolist(), "cover": cover.tolist()})
    overlaps = np.concatenate(pooled)
    success = {f"SR@{least}": float(np.mean(overlaps > least)) for least in (0.5, 0.75)}
    return {
        "picture": PICTURE,
        "sequences": sequences,
        "metrics": {"AO": float(np.mean(overlaps)), **success},
    }


def captions() -> dict:
    references = {number: [true] for number, (_, true) in enumerate(CAPTIONS)}
    given = {number: [text] for number, (text, _) in enumerate(CAPTIONS)}
    cider, each = Cider().compute_score(references, given)
    bleu, _ = Bleu(2).compute_score(references, given, verbose=0)
    return {"pairs": CAPTIONS, "CIDEr": float(cider), "each": each.tolist(), "BLEU-2": float(bleu[1])}


def runs(mask: np.ndarray) -> list[int]:
    """COCO's runs: down the columns, beginning with what is outside."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.array([0, *ends, flat.size])).tolist()
    return [0, *lengths] if flat[0] else lengths


def blob(random: np.random.Generator, shape: tuple[int, int], threshold: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    field = np.zeros(shape) + sum(
        np.cos(a * rows * 9 + b * columns * 9 + c) for a, b, c in random.uniform(-1, 1, (6, 3)) * [1, 1, 3]
    )
    return field > threshold


def masks() -> list[dict]:
    """J and F of the DAVIS challenge; shapes that touch every edge, are moved, whole, thin or empty."""
    random = np.random.default_rng(2)
    cases = []
    for shape in ((60, 90), (201, 133), (360, 640)):
        for threshold in (-1.0, 0.5, 2.0):
            true = blob(random, shape, threshold)
            cases += [(np.roll(true, (2, -1), (0, 1)), true), (blob(random, shape, threshold), true)]
        whole, none, line = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
        line[shape[0] // 2] = True
        corner = np.zeros(shape, bool)
        corner[-5:, -9:] = True
        cases += [(whole, true), (none, true), (true, none), (none, none), (whole, whole), (line, corner)]
        cases += [(np.roll(line, 1, 0), line), (corner, corner), (corner[::-1, ::-1], corner)]
    found = []
    for given, true in cases:
        judge = Evaluator()
        judge.objects_in_gt.add(1)
        judge.feed_frame(given.astype(np.uint8), true.astype(np.uint8))
        (j,), (f,) = judge.object_iou[1], judge.boundary_f[1]
        found.append(
            {
                "size": list(true.shape),
                "given": runs(given),
                "true": runs(true),
                "J": float(j),
                "F": float(f),
            }
        )
    return found


if __name__ == "__main__":
    content = {"tracks": tracks(), "captions": captions(), "masks": masks()}
    OUT.write_text(json.dumps(content) + "\n", encoding="utf-8")
