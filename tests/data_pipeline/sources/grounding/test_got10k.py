"""GOT-10k: small sequences of our own in its layout."""

import json
from pathlib import Path

import numpy as np
import pytest

from onethinker_jax.data_pipeline.media.decoding import load_video
from onethinker_jax.data_pipeline.sources.sample import Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.sources.making_grounding import GOT_FRAMES, GOT_RATE, write_got10k, write_sequence


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_got10k(tmp_path / "val")
    return tmp_path


def test_a_sequence_is_a_question(data: Path) -> None:
    first, second = LAYOUTS["got-10k"](Source(data, split="val"))
    assert [one.record.problem_id for one in (first, second)] == ["GOT-10k_Val_000002", "GOT-10k_Val_000001"]
    # 2 seconds, key 3, is frame 8, in which the object is absent.
    assert first.record.problem == (
        "<video>The object has the box [10, 200, 210, 700] in the first frame. "
        "Track it: give its box once a second from 1, which is the first frame, to 2."
    )
    assert json.loads(first.record.answer[8:-9]) == {
        "boxes": {"1": [10, 200, 210, 700], "2": [90, 200, 290, 700]}
    }
    assert json.loads(second.record.answer[8:-9])["boxes"]["3"] == [170, 200, 370, 700]
    facts = first.facts
    assert facts["fps"] == GOT_RATE and facts["resolution"] == (100, 50)
    assert facts["frame_boxes"][3] == (7, 10, 27, 35) and len(facts["frame_boxes"]) == GOT_FRAMES
    assert facts["cover"] == {1: 0, 2: 4} and facts["frame_cover"] == tuple(
        frame % 9 for frame in range(GOT_FRAMES)
    )
    assert next(iter(LAYOUTS["got-10k"](Source(data / "val")))).record.problem_id == first.record.problem_id


def test_its_frames_are_its_video(data: Path) -> None:
    first, _ = LAYOUTS["got-10k"](Source(data / "val"))
    (film,) = first.record.videos
    video = load_video(film, fps=2, max_frames=100)
    assert np.allclose(video.timestamps, [0, 0.5, 1, 1.5, 2, 2.5]) and video.duration == 3


def test_at_most_32_seconds_are_asked(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "val" / "long", 4 * 40)
    for file in folder.glob("*.jpg"):
        file.unlink()
    boxes = "1,10,20,25\n" * 160
    (folder / "groundtruth.txt").write_text(boxes)
    (sample,) = LAYOUTS["got-10k"](Source(tmp_path / "val", check_media=False))
    assert list(json.loads(sample.record.answer[8:-9])["boxes"]) == [str(second) for second in range(1, 33)]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("groundtruth.txt", "1,2,3\n", r"groundtruth\.txt: row 1: must be x,y,width,height, is '1,2,3'"),
        (
            "groundtruth.txt",
            "1,2,3,4\n",
            r"row 1 \(sequence \S+\): groundtruth\.txt: not a line a frame: 1 for 12",
        ),
        ("groundtruth.txt", "0,0,0,0\n" * 12, r"groundtruth\.txt: has no box in the first frame"),
        ("cover.label", "1\n", r"cover\.label: has 1 rows, groundtruth\.txt 12"),
        ("absence.label", "x\n", r"absence\.label: row 1: must be a whole number, is 'x'"),
        ("meta_info.ini", "no section", r"meta_info\.ini: cannot be read"),
        ("meta_info.ini", "[METAINFO]\n", r"meta_info\.ini: anno_fps: must be a rate such as 10Hz, is None"),
    ],
)
def test_malformed_sequences_are_one_line(data: Path, file: str, content: str, said: str) -> None:
    (data / "val" / "GOT-10k_Val_000002" / file).write_text(content)
    with pytest.raises(SourceError, match=said) as raised:
        list(LAYOUTS["got-10k"](Source(data / "val")))
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(SourceError, match=r"train: no such folder"):
        list(LAYOUTS["got-10k"](Source(data / "train")))
    (data / "val" / "list.txt").write_text("GOT-10k_Val_000009\n")
    with pytest.raises(SourceError, match=r"GOT-10k_Val_000009/meta_info\.ini: cannot be read"):
        list(LAYOUTS["got-10k"](Source(data / "val")))
    folder = data / "val" / "GOT-10k_Val_000002"
    (data / "val" / "list.txt").write_text(folder.name)
    for frame in folder.glob("*.jpg"):
        frame.unlink()
    with pytest.raises(
        SourceError, match=r"row 1 \(sequence GOT-10k_Val_000002\): sequence: has no frames in "
    ):
        list(LAYOUTS["got-10k"](Source(data / "val")))
