"""MeViS and ReasonVOS: small folders of our own in their layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.sources.grounding.referring_videos import FPS
from onethinker_jax.data_pipeline.sources.sample import Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.rewards.metrics import decode_rle, encode_rle
from tests.data_pipeline.sources.making_grounding import (
    MEVIS_NAMES,
    video_mask,
    write_meta,
    write_mevis,
    write_reasonvos,
)


def film(expression: dict, frames: list[str] = MEVIS_NAMES) -> dict[str, Any]:
    return {"film": {"frames": frames, "expressions": {"0": expression}}}


@pytest.fixture
def mevis(tmp_path: Path) -> Path:
    return write_mevis(tmp_path / "mevis")


def test_mevis(mevis: Path) -> None:
    first, both = LAYOUTS["mevis"](Source(mevis))
    assert [one.record.problem_id for one in (first, both)] == ["film_0", "film_1"]
    assert first.record.problem == "<video>Segment this in the video: the dog that runs"
    assert first.record.videos == (FrameFolder(mevis / "JPEGImages" / "film", FPS),)
    masks = first.record.segmentation
    assert masks is not None and masks.names == ("00000", "00005", "00015")
    assert masks.frames == (0, 1, 3) and masks.fps == FPS  # places in the folder, whatever the names count
    assert np.array_equal(decode_rle(masks.rles[2]), video_mask(3))
    assert first.facts == {"fps": FPS, "frames": tuple(MEVIS_NAMES), "resolution": (40, 30)}
    assert both.record.segmentation is not None
    assert np.array_equal(decode_rle(both.record.segmentation.rles[2]), video_mask(3) | video_mask(20))
    assert first.record.data_source == "MeViS" and first.groups == {}


def test_a_split_is_a_folder(mevis: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("MeViS")
    mevis.rename(whole / "valid_u")
    assert len(list(LAYOUTS["mevis"](Source(whole, split="valid_u")))) == 2


@pytest.mark.parametrize(
    ("videos", "said"),
    [
        ([], "videos: must be an object"),
        ({"film": {"frames": MEVIS_NAMES}}, "film: must have expressions, an object"),
        ({"film": {"frames": MEVIS_NAMES, "expressions": {"0": 3}}}, "film: expression 0: must be an object"),
        (film({"exp": "a"}), r"row 1 \(video film\): anno_id: is missing"),
        (film({"exp": "a", "anno_id": [9]}), r"anno_id: has no mask a frame in mask_dict\.json: 9"),
        (film({"exp": "a", "anno_id": [11]}, ["7"]), "frames: has no picture '7'"),
        (film({"exp": "", "anno_id": [11]}), "exp: is empty"),
        ({"gone": film({"exp": "a", "anno_id": [11]})["film"]}, r"video: has no frames in .*gone"),
    ],
)
def test_malformed_expressions_are_one_line(mevis: Path, videos: Any, said: str) -> None:
    write_meta(mevis, videos)
    with pytest.raises(SourceError, match=rf"meta_expressions\.json: {said}|{said}") as raised:
        list(LAYOUTS["mevis"](Source(mevis)))
    assert "\n" not in str(raised.value) and "meta_expressions.json" in str(raised.value)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([None] * 4, "expressions: has no mask in any frame"),
        ([{"size": [3], "counts": "a"}] * 4, "anno_id: has a mask that is no COCO RLE"),
        ([encode_rle(video_mask(1))], "anno_id: has no mask a frame"),
        (
            [encode_rle(video_mask(1)[:, :9])] * 4,
            r"segmentation_output: mask '00000': is 30 x 9, the picture 30 x 40",
        ),
    ],
)
def test_malformed_masks_are_one_line(mevis: Path, masks: list, said: str) -> None:
    (mevis / "mask_dict.json").write_text(json.dumps({"11": masks, "12": masks}))
    with pytest.raises(SourceError, match=said):
        list(LAYOUTS["mevis"](Source(mevis)))


@pytest.fixture
def reasonvos(tmp_path: Path) -> Path:
    return write_reasonvos(tmp_path / "ReasonVOS")


def test_reasonvos(reasonvos: Path) -> None:
    first, second = LAYOUTS["reasonvos"](Source(reasonvos))
    assert first.record.problem == "<video>Who barks? Segment it." and first.groups == {"source": "BURST"}
    assert second.record.problem_id == "film_1" and first.record.data_source == "ReasonVOS"
    masks = first.record.segmentation
    assert masks is not None and masks.frames == (0, 2, 3)
    assert np.array_equal(decode_rle(masks.rles[1]), video_mask(2))
    assert first.facts["frames"] == tuple(MEVIS_NAMES)


def test_masks_that_are_missing_are_named(reasonvos: Path) -> None:
    (reasonvos / "Annotations" / "burst_film_4").rename(reasonvos / "Annotations" / "other")
    with pytest.raises(SourceError, match=r"obj_id: has no masks that can be read in burst_film_4"):
        list(LAYOUTS["reasonvos"](Source(reasonvos)))
