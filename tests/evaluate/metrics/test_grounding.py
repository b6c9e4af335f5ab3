"""Spans, boxes, tracks and tubes: by hand, and GOT-10k's by its toolkit's numbers."""

import json

import numpy as np
import pytest

from onethinker_jax.evaluate.metrics import boxes, spans, tracks, tubes
from onethinker_jax.evaluate.metrics.shares import ratio
from tests.evaluate.metrics.problems import answer
from tests.places import ROOT

GOLDEN = json.loads((ROOT / "tests" / "golden" / "benchmark_metrics.json").read_text())["tracks"]


def values(measured, form: str) -> dict[str, float | None]:
    shares = {metric: getattr(forms, form) for metric, forms in measured.items()}
    return {name: None if share is None else float(ratio(np.array(share))) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("given", "iou"),
    [
        ('{"time": [2, 12]}', 8 / 12),
        ('{"time": ["2", 12.0]}', 8 / 12),
        ('{"time": [10, 12]}', 0.0),
        ('{"time": [12, 2]}', 0.0),
        ('{"time": [7, 10]}', 0.3),  # 3 of 10 seconds: at the threshold is at least it
        ('{"time": [5.5, 12.5], "more": 1}', 4.5 / 12.5),
        ('{"time": [1e400, 2]}', 0.0),
        ('{"time": [1, 2, 3]}', 0.0),
        ('{"span": [2, 12]}', 0.0),
        ("[2, 12]", 0.0),
        ("2 to 12", 0.0),
    ],
)
def test_spans(given: str, iou: float) -> None:
    measured = spans.measure(answer("temporal grounding", '{"time": [0, 10]}', given))
    wanted = {"mIoU": iou, **{f"R@{least}": float(iou >= least) for least in (0.3, 0.5, 0.7)}}
    assert values(measured, "released") == values(measured, "standard") == pytest.approx(wanted)


def test_spans_at_a_threshold_are_rounded_as_the_published_script_rounds_them() -> None:
    """By the sum of the lengths less the overlap, the IoU of these would be 0.49999999999999994."""
    measured = spans.measure(answer("temporal grounding", '{"time": [3.5, 9.4]}', '{"time": [5.7, 10.9]}'))
    assert measured["R@0.5"].released == (1.0, 1.0)


def test_no_span_is_the_whole_video_where_its_length_is_known() -> None:
    """As the authors of ActivityNet-RTL have it."""
    given = answer("temporal grounding", '{"time": [0, 10]}', "never", facts={"duration": 40.0})
    measured = spans.measure(given)
    assert values(measured, "released")["mIoU"] == 0.0
    assert values(measured, "standard")["mIoU"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("given", "iou"),
    [
        ('{"boxes": [0, 0, 100, 50]}', 0.5),
        ('{"boxes": [50, 50, 150, 150]}', 2500 / 17500),
        ('{"boxes": [100, 50, 0, 0]}', 0.0),
        ('{"boxes": [[0, 0, 100, 50]]}', 0.0),
        ('{"boxes": {"1": [0, 0, 100, 50]}}', 0.0),
    ],
)
def test_boxes(given: str, iou: float) -> None:
    measured = boxes.measure(answer("spatial grounding", '{"boxes": [0, 0, 100, 100]}', given))
    assert values(measured, "released") == values(measured, "standard")
    assert values(measured, "released")["mIoU"] == pytest.approx(iou)
    assert values(measured, "released")["R@0.5"] == (iou >= 0.5)


def test_tubes() -> None:
    """Shared seconds are 2 and 3, with IoU 1 and 0.5; either has 1, 2, 3 and 9."""
    true = '{"time": [1, 4], "boxes": {"1": [0, 0, 9, 9], "2": [0, 0, 100, 100], "3": [0, 0, 100, 100]}}'
    given = '{"time": [2, 4], "boxes": {"2": [0, 0, 100, 100], "3": [0, 0, 100, 50], "9": [0, 0, 9, 9]}}'
    measured = tubes.measure(answer("spatial-temporal grounding", true, given))
    time = {"tIoU": pytest.approx(2 / 3), "tIoU@0.5": 1.0}
    assert values(measured, "released") == {**time, "sIoU": 0.75, "sIoU@0.5": 1.0, "vIoU": None}
    assert values(measured, "standard") == {**time, "sIoU": None, "sIoU@0.5": None, "vIoU": 1.5 / 4}


def test_tubes_without_boxes_or_time() -> None:
    true = '{"time": [1, 2], "boxes": {"1": [0, 0, 100, 100]}}'
    only_time = tubes.measure(answer("spatial-temporal grounding", true, '{"time": [1, 2]}'))
    assert values(only_time, "released")["tIoU"] == 1.0 and values(only_time, "standard")["vIoU"] == 0.0
    broken = tubes.measure(
        answer("spatial-temporal grounding", true, '{"boxes": {"1": "x", "01": [0, 0, 100, 100]}}')
    )
    assert values(broken, "released")["sIoU"] == values(broken, "standard")["vIoU"] == 0.0


def test_tracks_by_hand() -> None:
    """Three seconds: right, half, missing. The toolkit leaves out the first, and 0.5 is not above 0.5."""
    true = '{"boxes": {"1": [0, 0, 100, 100], "2": [0, 0, 100, 100], "10": [0, 0, 100, 100]}}'
    given = '{"boxes": {"1": [0, 0, 100, 100], "2": [0, 0, 100, 50], "3": [0, 0, 100, 100]}}'
    measured = tracks.measure(answer("tracking", true, given))
    recalls = {"R@0.3": 1.0, "R@0.5": 1.0, "R@0.7": 0.0}
    assert values(measured, "released") == {"AO": 0.5, "SR@0.5": 1.0, "SR@0.75": 0.0, **recalls}
    assert values(measured, "standard") == {
        "AO": 0.25,
        "SR@0.5": 0.0,
        "SR@0.75": 0.0,
        **dict.fromkeys(recalls),
    }
    one = tracks.measure(answer("tracking", '{"boxes": {"1": [0, 0, 9, 9]}}', "{}"))
    assert values(one, "released")["AO"] == 0.0 and values(one, "standard")["AO"] is None


def test_tracks_by_the_toolkit() -> None:
    """Boxes beyond the picture, frames in which the object cannot be seen, three sequences pooled."""
    width, height = GOLDEN["picture"]

    def thousandths(box: list[float]) -> list[float]:
        x, y, w, h = box
        corners = np.array([x, y, x + w, y + h]) * 1000 / [width, height, width, height]
        return corners.tolist()

    sums: dict[str, np.ndarray] = {}
    for sequence in GOLDEN["sequences"]:
        true, given = (
            {str(second): thousandths(box) for second, box in enumerate(sequence[name], 1)}
            for name in ("true", "given")
        )
        for box in true.values():
            assert min(box) >= 0 and max(box) < 1000.001
            box[2:] = [min(side, 1000.0) for side in box[2:]]
        cover = dict(enumerate(sequence["cover"], 1))
        one = answer(
            "tracking", json.dumps({"boxes": true}), json.dumps({"boxes": given}), facts={"cover": cover}
        )
        for metric, forms in tracks.measure(one).items():
            if forms.standard is not None:
                sums[metric] = sums.get(metric, np.zeros(2)) + forms.standard
    found = {metric: float(ratio(shares)) for metric, shares in sums.items()}
    assert found == pytest.approx(GOLDEN["metrics"], abs=1e-9)
