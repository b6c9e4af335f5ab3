"""Measures against values by hand and against the libraries they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from onethinker_jax.rewards import metrics

WORDS = st.lists(
    st.sampled_from(
        ["running", "runs", "dying", "die", "lying", "skies", "happily", "big", "cats", "x1", "a", "héllo"]
    ),
    max_size=14,
).map(" ".join)


def test_box_and_span_overlap():
    assert metrics.box_iou((0, 0, 10, 10), (5, 5, 15, 15)) == pytest.approx(25 / 175)
    assert metrics.box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert metrics.box_iou((10, 10, 0, 0), (10, 10, 0, 0)) == 0.0
    assert metrics.span_iou((0, 4), (1, 3)) == 0.5
    assert metrics.span_iou((1, 1), (1, 1)) == 0.0


@settings(deadline=None)
@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_matching_ignores_the_points_order(count, random):
    points = [(random.uniform(0, 1000), random.uniform(0, 1000)) for _ in range(count)]
    shuffled = random.sample(points, count)
    assert metrics.matched_distance(points, shuffled) == pytest.approx(0.0, abs=1e-9)
    moved = [(x + 3, y + 4) for x, y in points]
    assert metrics.matched_distance(moved, points) <= 5.0 + 1e-9


def test_matching_by_permutation_and_by_assignment_agree():
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.uniform(0, 1000, (2, 5, 2))
        far = [[1e6, 1e6]]
        with_far = metrics.matched_distance([*a, *far], [*b, *far])  # six points: the other way
        assert with_far * 6 == pytest.approx(metrics.matched_distance(a, b) * 5)
    with pytest.raises(ValueError, match="2 points with 1"):
        metrics.matched_distance([[0, 0], [1, 1]], [[0, 0]])


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_rouge_is_the_librarys(predicted, reference):
    library = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    wanted = [score.fmeasure for score in library.score(reference, predicted).values()]
    assert metrics.rouge_scores(predicted, reference) == pytest.approx(wanted, abs=1e-12)


def test_word_accuracy():
    assert metrics.word_accuracy("a b c", "a b c") == 1.0
    assert metrics.word_accuracy("a  x\nc", "a b c") == pytest.approx(2 / 3)
    assert metrics.word_accuracy("A b c", "a b c") == pytest.approx(2 / 3)
    assert metrics.word_accuracy("", "a") == 0.0
    assert metrics.word_accuracy("a", "") == 0.0
    assert metrics.word_accuracy("", " ") == 1.0


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_rle_there_and_back(height, width, density, seed):
    mask = np.random.default_rng(seed).random((height, width)) < density
    encoded = metrics.encode_rle(mask)
    assert np.array_equal(metrics.decode_rle(encoded), mask)
    columns = mask.reshape(-1, order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], columns, [1 - columns[-1]]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    assert np.array_equal(metrics.decode_rle({"size": [height, width], "counts": runs}), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2], "counts": "04"},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": "zzzz"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": 4},
        {"size": ["a", 2], "counts": "04"},
        {"size": [10**9, 10**9], "counts": "04"},
    ],
)
def test_broken_rle_is_refused(rle):
    with pytest.raises(ValueError, match="not a COCO RLE"):
        metrics.decode_rle(rle)


def test_mask_overlap():
    a = np.zeros((4, 4), dtype=bool)
    a[:2] = True
    b = np.zeros((4, 4), dtype=bool)
    b[1:3] = True
    assert metrics.mask_iou(a, b) == pytest.approx(4 / 12)
    assert metrics.mask_iou(~(a | ~a), ~(a | ~a)) == 1.0
    with pytest.raises(ValueError, match="differ in size"):
        metrics.mask_iou(a, b[:2])


def test_the_mean_over_frames_of_mask_overlap():
    a, b, empty = np.zeros((3, 4, 4), dtype=bool)
    a[:2] = True
    b[1:3] = True
    rle, empty_rle = metrics.encode_rle(b), metrics.encode_rle(empty)
    assert metrics.mean_mask_iou(a[None], [rle]) == pytest.approx(4 / 12)
    masks = np.stack([a, b, empty, a])
    assert metrics.mean_mask_iou(masks, [rle, rle, empty_rle, empty_rle]) == pytest.approx(
        (1 / 3 + 1 + 1 + 0) / 4
    )
    with pytest.raises(ValueError, match="4 masks cannot be held against 1"):
        metrics.mean_mask_iou(masks, [rle])
    with pytest.raises(ValueError, match="0 masks"):
        metrics.mean_mask_iou(masks[:0], [])
