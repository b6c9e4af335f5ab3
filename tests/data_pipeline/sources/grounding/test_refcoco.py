"""RefCOCO's files of our own making, written as Python 2 and Python 3 write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.sources.sample import Sample, Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.rewards.metrics import decode_rle
from tests.data_pipeline.sources.making_grounding import (
    COCO_NAMES,
    TWO_SQUARES,
    annotation,
    ref,
    write_coco,
    write_refcoco,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_coco(tmp_path / "refcoco" / "train2014")
    return write_refcoco(tmp_path / "refcoco")


def test_boxes(path: Path) -> None:
    samples = list(LAYOUTS["refcoco"](Source(path)))
    assert [sample.record.problem_id for sample in samples] == [10, 11, 20]
    first, second, last = samples
    assert first.record.problem == "<image>Locate this in the image: left man"
    assert second.record.problem.endswith(": man in café")
    assert first.record.answer == '<answer>{"boxes": [200, 250, 900, 1000]}</answer>'
    assert last.record.answer == '<answer>{"boxes": [0, 100, 500, 225]}</answer>'
    assert first.facts == {"box": (10, 10, 45, 40), "resolution": (50, 40)}
    assert last.facts["box"] == (-5, 4, 25, 9) and last.groups == {"split": "val"}
    assert first.record.images == (path.parent / "train2014" / COCO_NAMES[0],)
    assert first.record.data_source == "RefCOCO"


def test_splits_are_kept_apart(path: Path) -> None:
    def ids(split: str) -> list:
        return [sample.record.problem_id for sample in LAYOUTS["refcoco"](Source(path, split=split))]

    assert (ids("testA"), ids("val")) == ([10, 11], [20])
    with pytest.raises(SourceError, match=r"refs\(unc\)\.p: has no split 'testB' \(has: testA, val\)"):
        ids("testB")


def test_masks_are_filled_polygons_and_rle(path: Path) -> None:
    first, _, last = LAYOUTS["refcoco-seg"](Source(path))

    def mask(sample: Sample) -> np.ndarray:
        assert sample.record.segmentation is not None
        return decode_rle(sample.record.segmentation.rles[0])

    wanted = np.zeros((40, 50), bool)
    wanted[10:20, 10:30] = wanted[30:40, 40:45] = True  # both polygons, whose sides lie between pixels
    assert np.array_equal(mask(first), wanted)
    wanted = np.zeros((40, 50), bool)
    wanted[5:9, :25] = True
    assert np.array_equal(mask(last), wanted)
    assert last.record.problem == "<image>Segment this in the image: dog" and last.record.answer == ""
    assert last.facts["resolution"] == (50, 40)


def test_pictures_may_lie_elsewhere_or_nowhere(path: Path, tmp_path: Path) -> None:
    (path.parent / "train2014").rename(tmp_path / "coco")
    with pytest.raises(
        SourceError, match=r"refs\(unc\)\.p: row 1 \(sent_id 10\): file_name: no such file .*train2014"
    ):
        next(iter(LAYOUTS["refcoco"](Source(path))))
    first = next(iter(LAYOUTS["refcoco"](Source(path, media_root=tmp_path / "coco"))))
    assert first.record.images == (tmp_path / "coco" / COCO_NAMES[0],)
    for layout in ("refcoco", "refcoco-seg"):
        assert len(list(LAYOUTS[layout](Source(path, check_media=False)))) == 3


@pytest.mark.parametrize(
    ("refs", "annotations", "said"),
    [
        ([ref(1, "val", "a") | {"split": [1]}], [], r"row 1 \(ref_id 1\): split: must be a text, is list"),
        ([ref(1, "val", "a") | {"ann_id": [1]}], [], r"row 1 \(ref_id 1\): ann_id: must be a text, is list"),
        ({}, [], r"refs\(unc\)\.p: refs: must be a list, is dict"),
        ([3], [], r"row 1: must be a dict, is int"),
        ([ref(1, "val", "a")], [], r"row 1 \(ref_id 1\): ann_id: is not in instances\.json: 71"),
        (
            [ref(1, "val", "a") | {"sentences": 3}],
            [annotation(1, [1, 1, 2, 2], TWO_SQUARES)],
            r"row 1: sentences: must be a",
        ),
        (
            [ref(1, "val", "")],
            [annotation(1, [1, 1, 2, 2], TWO_SQUARES)],
            r"row 1 \(sent_id 10\): sent: is empty",
        ),
        (
            [ref(1, "val", "a")],
            [annotation(1, [1, 1, 0, 2], TWO_SQUARES)],
            r"\(sent_id 10\): bbox: must be \[x, y, width",
        ),
        ([ref(1, "val", "a")], [annotation(1, [60, 1, 5, 2], TWO_SQUARES)], r"bbox: is outside the picture"),
        (
            [ref(1, "val", "a")] * 2,
            [annotation(1, [1, 1, 2, 2], TWO_SQUARES)],
            r"sent_id: is there twice: also in row 1",
        ),
        (
            [ref(1, "val", "a")],
            [{"id": "x"}],
            r"instances\.json: annotations 1: must be an object with numbers for id and image_id",
        ),
    ],
)
def test_malformed_files_are_one_line(tmp_path: Path, refs: Any, annotations: list, said: str) -> None:
    with pytest.raises(SourceError, match=said) as raised:
        list(
            LAYOUTS["refcoco"](
                Source(write_refcoco(tmp_path / "refcoco", refs, annotations), check_media=False)
            )
        )
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([], "must be polygons"),
        ([[1, 2, 3, 4]], "must be polygons"),
        ([[1, 2, 3, 4, 5, "a"]], "must be polygons"),
        ([[0, 0, 10, 0, 1e14, 10]], r"leaves the picture: 1e\+14"),
        ([[0, 0, 10, 0, 10, -41]], "leaves the picture: -41"),
        ({"size": [40, 50], "counts": "abc"}, "is no COCO RLE"),
        ({"size": [2, 2], "counts": [4]}, r"is of another size than the picture: \[2, 2\]"),
    ],
)
def test_malformed_masks_are_one_line(tmp_path: Path, shape: Any, said: str) -> None:
    write_coco(tmp_path / "refcoco" / "train2014")
    path = write_refcoco(tmp_path / "refcoco", [ref(1, "val", "a")], [annotation(1, [1, 1, 2, 2], shape)])
    with pytest.raises(SourceError, match=rf"row 1 \(sent_id 10\): segmentation: {said}"):
        list(LAYOUTS["refcoco-seg"](Source(path)))


def test_a_malicious_pickle_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_refcoco(tmp_path / "refcoco", b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(SourceError, match=r"refs\(unc\)\.p: names os\.system, which"):
        list(LAYOUTS["refcoco"](Source(path)))
    assert not (tmp_path / "ran").exists()
