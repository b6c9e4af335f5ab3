"""J, F, cIoU and gIoU: by the numbers of another DAVIS evaluation, by pycocotools, and by hand."""

import json
import math
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from onethinker_jax.evaluate.metrics import masks
from onethinker_jax.evaluate.metrics.boundaries import released_f, standard_f
from onethinker_jax.rewards.metrics import decode_rle, encode_rle, mask_iou
from tests.evaluate.metrics.problems import answer, value_of
from tests.places import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "benchmark_metrics.json").read_text())["masks"]


def of(case: dict, which: str) -> np.ndarray:
    return decode_rle({"size": case["size"], "counts": case[which]})


@pytest.mark.parametrize("case", GOLDEN, ids=[str(number) for number in range(len(GOLDEN))])
def test_j_and_f_of_davis(case: dict) -> None:
    given, true = of(case, "given"), of(case, "true")
    assert mask_iou(given, true) == pytest.approx(case["J"], abs=1e-12)
    assert standard_f(given, true) == pytest.approx(case["F"], abs=1e-12)


def by_dilation(given: np.ndarray, true: np.ndarray) -> float:
    """The released F with a kernel over the whole picture; written apart from ours."""
    if not given.any() or not true.any():
        return float(not given.any() and not true.any())
    radius = max(1, round(0.0075 * math.hypot(*true.shape)))
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    outlines = []
    for mask in (given, true):
        eroded = cv2.erode(
            mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        outlines.append(mask & (eroded == 0))
    wide = [cv2.dilate(outline.astype(np.uint8), square) > 0 for outline in outlines]
    precision = (outlines[0] & wide[1]).sum() / outlines[0].sum()
    recall = (outlines[1] & wide[0]).sum() / outlines[1].sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("case", GOLDEN, ids=[str(number) for number in range(len(GOLDEN))])
def test_released_f(case: dict) -> None:
    given, true = of(case, "given"), of(case, "true")
    assert released_f(given, true) == pytest.approx(by_dilation(given, true), abs=1e-12)


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (40, 60)) -> dict:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return encode_rle(mask)


def image(true: dict, given: dict | None) -> dict[str, dict[str, tuple | None]]:
    one = answer(
        "segmentation",
        "",
        "a box",
        data_type="image",
        segmentation_output={"segmentation_rle": true},
        masks=None if given is None else {"": given},
    )
    return {metric: forms._asdict() for metric, forms in masks.measure(one).items()}


def test_images() -> None:
    """IoU 1/2 of a small object, 1/4 of a large one, and an answer that gave no prompt."""
    small = image(rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 5))
    large = image(rectangle(0, 0, 40, 40), rectangle(0, 0, 40, 10))
    none = image(rectangle(0, 0, 10, 20), None)
    assert none["cIoU"]["released"] is None and none["gIoU"]["released"] is None

    def value(metric: str, form: str) -> float:
        return value_of(one[metric][form] for one in (small, large, none))

    assert value("cIoU", "released") == pytest.approx(450 / 1700)
    assert value("cIoU", "standard") == pytest.approx(450 / 1900)
    assert value("gIoU", "released") == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert value("gIoU", "standard") == pytest.approx((1 / 2 + 1 / 4) / 3)


def test_images_as_coco_has_them() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        a, b = (encode_rle(random.random((30, 50)) < share) for share in random.random(2))
        packed: Any = [{**rle, "counts": rle["counts"].encode()} for rle in (a, b)]
        wanted = coco.iou([packed[0]], [packed[1]], [0])[0][0]  # pyright: ignore[reportAttributeAccessIssue]
        assert value_of([image(b, a)["cIoU"]["standard"]]) == pytest.approx(wanted)


def test_two_empty_masks() -> None:
    empty = rectangle(0, 0, 0, 0)
    found = image(empty, empty)
    assert found["gIoU"] == {"released": (0.0, 1.0), "standard": (1.0, 1.0)}
    assert found["cIoU"]["standard"] == (0.0, 0.0)


def video(given: dict | None, frames: list[str] | None = None) -> dict[str, dict[str, tuple | None]]:
    """True masks in frames 0 and 2, the same square."""
    square = rectangle(10, 10, 30, 30)
    output = {"segmentation_rle": {"00000": square, "00002": square}}
    listed = {} if frames is None else {"frames": frames}
    one = answer("segmentation", "", "a box", fps=2, segmentation_output={**output, **listed}, masks=given)
    return {metric: forms._asdict() for metric, forms in masks.measure(one).items()}


def test_videos() -> None:
    """One frame right, one missing; of those without an object one empty, one with a mask."""
    square = rectangle(10, 10, 30, 30)
    frames = ["00000", "00001", "00002", "00003"]
    found = video({"00000": square, "00003": square}, frames)
    assert found["J"] == found["F"] == found["J&F"] == {"released": (0.5, 1.0), "standard": (0.5, 1.0)}
    found = video({"00000": square}, frames)
    assert found["J"] == {"released": (0.5, 1.0), "standard": (0.75, 1.0)}
    assert video({"00000": square})["J"] == {"released": (0.5, 1.0), "standard": (0.5, 1.0)}


def test_a_video_without_a_prompt_counts_in_both_forms() -> None:
    assert video(None, ["00000", "00001", "00002"])["J"] == {
        "released": (0.0, 1.0),
        "standard": (pytest.approx(1 / 3), 1.0),
    }


def test_a_frame_without_a_predicted_mask_scores_nothing_as_released() -> None:
    """Where nothing is true there, an empty mask has the right outline (F 1) and an IoU of 0 / 0, given as 0."""
    nothing = rectangle(0, 0, 0, 0)
    output = {"segmentation_rle": {"00000": nothing}}
    values = {}
    for which, given in (("absent", None), ("empty", {"00000": nothing})):
        one = answer("segmentation", "", "x", fps=2, segmentation_output=output, masks=given)
        measured = masks.measure(one)
        values[which] = measured["J"].released, measured["F"].released
        assert measured["J"].standard == measured["F"].standard == (1.0, 1.0)
    assert values == {"absent": ((0.0, 1.0), (0.0, 1.0)), "empty": ((0.0, 1.0), (1.0, 1.0))}


def test_frames_are_known_by_number_where_endings_differ() -> None:
    square = rectangle(10, 10, 30, 30)
    frames = ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert video({"00000": square, "00002": square}, frames)["J"]["standard"] == (1.0, 1.0)


def test_a_null_stands_for_no_true_mask() -> None:
    square = rectangle(10, 10, 30, 30)
    output = {"segmentation_rle": {"00000": square, "00001": None}}
    one = answer("segmentation", "", "x", fps=2, segmentation_output=output, masks={"00000": square})
    assert masks.measure(one)["J"] == ((1.0, 1.0), (1.0, 1.0))
    one = answer("segmentation", "", "x", fps=2, segmentation_output=output, masks={"00001": square})
    assert masks.measure(one)["J"] == ((0.0, 1.0), (0.0, 1.0))


def test_j_and_f_of_one_frame_by_hand() -> None:
    """A square of 20 against its upper half: IoU 1/2."""
    found = video({"00000": rectangle(10, 10, 20, 30), "00002": rectangle(10, 10, 20, 30)})
    assert found["J"]["released"] == (0.5, 1.0)
    f = by_dilation(decode_rle(rectangle(10, 10, 20, 30)), decode_rle(rectangle(10, 10, 30, 30)))
    assert found["F"]["released"] == (pytest.approx(f), 1.0)
    assert found["J&F"]["released"] == (pytest.approx((0.5 + f) / 2), 1.0)
