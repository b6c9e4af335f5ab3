"""MeViS and ReasonVOS: small folders of our own in their layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onethinker_jax.data_pipeline.media.frame_folder import FrameFolder
from onethinker_jax.data_pipeline.sources.referring_videos import FPS
from onethinker_jax.data_pipeline.sources.sample import SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from onethinker_jax.rewards.metrics import decode_rle, encode_rle
from tests.data_pipeline.making import picture

NAMES = [f"{5 * number:05}" for number in range(4)]  # every fifth frame of some film


def mask(left: int) -> np.ndarray:
    found = np.zeros((30, 40), bool)
    found[5:15, left : left + 6] = True
    return found


def write_frames(folder: Path) -> None:
    (folder / "JPEGImages" / "film").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.fromarray(picture(30, 40, number)).save(folder / "JPEGImages" / "film" / f"{name}.jpg")


def film(expression: dict, frames: list[str] = NAMES) -> dict[str, Any]:
    return {"film": {"frames": frames, "expressions": {"0": expression}}}


@pytest.fixture
def mevis(tmp_path: Path) -> Path:
    write_frames(tmp_path)
    expressions = {
        "0": {"exp": "the dog that runs", "obj_id": [1], "anno_id": [11]},
        "1": {"exp": "both dogs", "obj_id": [1, 2], "anno_id": [11, 12]},
    }
    write_meta(tmp_path, {"film": {"vid_id": 3, "frames": NAMES, "expressions": expressions}})
    masks = {
        "11": [encode_rle(mask(n)) if n != 2 else None for n in range(4)],
        "12": [None] * 3 + [encode_rle(mask(20))],
    }
    (tmp_path / "mask_dict.json").write_text(json.dumps(masks))
    return tmp_path


def write_meta(folder: Path, videos: Any) -> None:
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}))


def test_mevis(mevis: Path) -> None:
    first, both = LAYOUTS["mevis"](mevis)
    assert [one.record.problem_id for one in (first, both)] == ["film_0", "film_1"]
    assert first.record.problem == "<video>Segment this in the video: the dog that runs"
    assert first.record.videos == (FrameFolder(mevis / "JPEGImages" / "film", FPS),)
    masks = first.record.segmentation
    assert masks is not None and masks.names == ("00000", "00005", "00015")
    assert masks.frames == (0, 1, 3) and masks.fps == FPS  # places in the folder, whatever the names count
    assert np.array_equal(decode_rle(masks.rles[2]), mask(3))
    assert first.facts == {"fps": FPS, "frames": tuple(NAMES), "resolution": (40, 30)}
    assert both.record.segmentation is not None
    assert np.array_equal(decode_rle(both.record.segmentation.rles[2]), mask(3) | mask(20))
    assert first.record.data_source == "MeViS" and first.groups == {}


def test_a_split_is_a_folder(mevis: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("MeViS")
    mevis.rename(whole / "valid_u")
    assert len(list(LAYOUTS["mevis"](whole, split="valid_u"))) == 2


@pytest.mark.parametrize(
    ("videos", "said"),
    [
        ([], "videos: must be an object"),
        ({"film": {"frames": NAMES}}, "film: must have expressions, an object"),
        ({"film": {"frames": NAMES, "expressions": {"0": 3}}}, "film: expression 0: must be an object"),
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
        list(LAYOUTS["mevis"](mevis))
    assert "\n" not in str(raised.value) and "meta_expressions.json" in str(raised.value)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([None] * 4, "expressions: has no mask in any frame"),
        ([{"size": [3], "counts": "a"}] * 4, "anno_id: has a mask that is no COCO RLE"),
        ([encode_rle(mask(1))], "anno_id: has no mask a frame"),
        (
            [encode_rle(mask(1)[:, :9])] * 4,
            r"segmentation_output: mask '00000': is 30 x 9, the picture 30 x 40",
        ),
    ],
)
def test_malformed_masks_are_one_line(mevis: Path, masks: list, said: str) -> None:
    (mevis / "mask_dict.json").write_text(json.dumps({"11": masks, "12": masks}))
    with pytest.raises(SourceError, match=said):
        list(LAYOUTS["mevis"](mevis))


@pytest.fixture
def reasonvos(tmp_path: Path) -> Path:
    write_frames(tmp_path)
    expressions = {
        "0": {"exp_text": "Who barks?", "obj_id": 4},
        "1": {"exp_text": "Which is the pet?", "obj_id": 4},
    }
    write_meta(
        tmp_path, {"film": {"source": "BURST", "is_sent": 1, "frames": NAMES, "expressions": expressions}}
    )
    folder = tmp_path / "Annotations" / "burst_film_4"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        found = mask(number) if number != 1 else np.zeros((30, 40), bool)
        Image.fromarray(found.astype(np.uint8) * 255).save(folder / f"{name}.png")
    return tmp_path


def test_reasonvos(reasonvos: Path) -> None:
    first, second = LAYOUTS["reasonvos"](reasonvos)
    assert first.record.problem == "<video>Who barks? Segment it." and first.groups == {"source": "BURST"}
    assert second.record.problem_id == "film_1" and first.record.data_source == "ReasonVOS"
    masks = first.record.segmentation
    assert masks is not None and masks.frames == (0, 2, 3)
    assert np.array_equal(decode_rle(masks.rles[1]), mask(2))
    assert first.facts["frames"] == tuple(NAMES)


def test_masks_that_are_missing_are_named(reasonvos: Path) -> None:
    (reasonvos / "Annotations" / "burst_film_4").rename(reasonvos / "Annotations" / "other")
    with pytest.raises(SourceError, match=r"obj_id: has no masks that can be read in burst_film_4"):
        list(LAYOUTS["reasonvos"](reasonvos))
