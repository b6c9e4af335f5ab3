"""HC-STVG and VidSTG: small files of our own in their layouts."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.sources.making_grounding import (
    TUBE_SIZE,
    hc_stvg,
    vidstg,
    write_hc_stvg,
    write_vidstg,
)


@pytest.mark.parametrize("column", ["caption", "English"])
def test_hc_stvg(tmp_path: Path, column: str) -> None:
    entry = hc_stvg()
    entry[column] = entry.pop("caption")
    (sample,) = LAYOUTS["hc-stvg"](Source(write_hc_stvg(tmp_path, entry)))
    answer = json.loads(sample.record.answer[8:-9])
    assert answer["time"] == [2.0, 4.03]
    assert answer["boxes"] == {
        "2": [30, 100, 230, 600],
        "3": [45, 100, 245, 600],
        "4": [60, 100, 260, 600],
    }
    assert sample.record.problem == "<video>When and where in the video is this: The man in grey sits down."
    assert sample.record.videos == (tmp_path / "3" / "55_abc.mp4",) and sample.record.problem_id == "55_abc"
    facts = sample.facts
    assert (facts["fps"], facts["frame_count"], facts["first_frame"]) == (30.0, 600, 60)
    assert facts["resolution"] == TUBE_SIZE and len(facts["boxes"]) == 61
    assert facts["boxes"][0] == (6.0, 10, 46.0, 60)


def test_a_time_between_two_seconds_has_the_nearest_ones_box(tmp_path: Path) -> None:
    (sample,) = LAYOUTS["hc-stvg"](Source(write_hc_stvg(tmp_path, hc_stvg(st_time=2.2, ed_time=2.9))))
    assert json.loads(sample.record.answer[8:-9])["boxes"] == {"3": [45, 100, 245, 600]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": [[1, 2, 3]]}, r"bbox: must be boxes \[x, y, width, height\], number 0 is not"),
        ({"bbox": "x"}, "bbox: cannot be read"),
        ({"bbox": []}, "bbox: has no box in the picture at a whole second of the time"),
        ({"st_time": 3e13, "ed_time": 1e14}, "bbox: has no box in the picture at a whole second of the time"),
        ({"st_time": "2"}, "st_time: must be a number, is '2'"),
        ({"st_time": 5.0}, "time: .*needs 0 <= start < end"),
        ({"caption": ""}, "caption: is empty"),
        ({"width": 0}, "width: must be positive, is 0"),
        ({"img_num": None}, "img_num: is empty"),
        ({"st_frame": 0}, "img_num and st_frame: must be from 1 on"),
        ({"st_time": 12.0, "ed_time": 14.0}, "bbox: has no box in the picture at a whole second of the time"),
    ],
)
def test_malformed_hc_stvg_is_one_line(tmp_path: Path, changes: dict, said: str) -> None:
    path = write_hc_stvg(tmp_path, hc_stvg(**changes))
    with pytest.raises(SourceError, match=rf"val_v2\.json: row 1 \(video 55_abc\.mp4\): {said}") as raised:
        list(LAYOUTS["hc-stvg"](Source(path)))
    assert "\n" not in str(raised.value)
    bad = BadRecords("skip")
    with pytest.raises(SourceError, match="holds no sample that can be used"):
        list(LAYOUTS["hc-stvg"](Source(path, bad=bad)))
    assert bad.count == 1


def test_a_video_that_is_nowhere_is_named(tmp_path: Path) -> None:
    path = write_hc_stvg(tmp_path)
    (tmp_path / "3" / "55_abc.mp4").unlink()
    with pytest.raises(SourceError, match=r"video: no such file .*55_abc\.mp4"):
        list(LAYOUTS["hc-stvg"](Source(path)))
    assert len(list(LAYOUTS["hc-stvg"](Source(path, check_media=False)))) == 1


def test_vidstg(tmp_path: Path) -> None:
    path = write_vidstg(tmp_path, vidstg())
    caption, question = LAYOUTS["vidstg"](Source(path))
    answer = json.loads(caption.record.answer[8:-9])
    assert answer == {"time": [2.5, 4.5], "boxes": {"3": [150, 200, 250, 400], "4": [200, 200, 300, 400]}}
    assert json.loads(question.record.answer[8:-9])["boxes"] == {"4": [500, 200, 600, 400]}
    assert caption.record.problem == (
        "<video>When and where in the video from 2.0 to 9.0 seconds is this: a child watches a ball."
    )
    assert question.record.problem.endswith("seconds is the answer to this: what is watched?")
    assert [one.record.problem_id for one in (caption, question)] == ["107_1_caption_0", "107_1_question_0"]
    assert [one.groups for one in (caption, question)] == [{"sentence": "caption"}, {"sentence": "question"}]
    assert question.facts["boxes"][:15] == (None,) * 15 and len(question.facts["boxes"]) == 20
    assert question.facts["first_frame"] == 25


def test_a_whole_video_needs_no_part(tmp_path: Path) -> None:
    rows = [vidstg(used_segment={"begin_fid": 0, "end_fid": 99}, questions=[])]
    (sample,) = LAYOUTS["vidstg"](Source(write_vidstg(tmp_path, *rows)))
    assert sample.record.problem == "<video>When and where in the video is this: a child watches a ball."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temporal_gt": {"begin_fid": 5}}, "temporal_gt: must have begin_fid < end_fid"),
        (
            {"temporal_gt": {"begin_fid": 5, "end_fid": 200}},
            r"temporal_gt: goes beyond the frames of 107\.json: 100",
        ),
        ({"captions": 3}, "captions: must be a list"),
        ({"captions": [3]}, r"captions\[0\]: must be an object"),
        ({"captions": [{"description": "a", "target_id": 5}]}, r"target_id: has no box in 107\.json: 5"),
        ({"captions": [{"description": "a"}]}, "target_id: is missing"),
        ({"fps": 0}, "frame_count and fps: must be those of a video, are 100 and 0"),
        ({"fps": 1e-9}, "frame_count and fps: must be those of a video"),
    ],
)
def test_malformed_vidstg_is_one_line(tmp_path: Path, changes: dict, said: str) -> None:
    path = write_vidstg(tmp_path, vidstg(**changes))
    with pytest.raises(SourceError, match=rf"test_annotations\.json: row 1 \(vid 107\): {said}"):
        list(LAYOUTS["vidstg"](Source(path)))


def test_boxes_of_vidor_that_are_missing_are_named(tmp_path: Path) -> None:
    path = write_vidstg(tmp_path, vidstg(vid="108"))
    with pytest.raises(SourceError, match=r"vidor/108\.json: cannot be read \(No such file or directory\)"):
        list(LAYOUTS["vidstg"](Source(path)))
