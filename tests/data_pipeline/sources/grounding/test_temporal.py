"""Charades-STA, ActivityNet Captions, ActivityNet-RTL: small files of our own in their layouts."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.making import write_rows, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "AB1CD.mp4", [0, 0.5, 1.0])
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "v_xyz.mkv", [0, 0.5, 1.0])
    return tmp_path


def test_charades_sta(folder: Path) -> None:
    path = folder / "charades_sta_test.txt"
    path.write_text(
        "AB1CD 0.0 6.9##a person opens <image> a door.\n\nAB1CD 24.3 30.4##the person ##closes it.\n"
    )
    first, second = LAYOUTS["charades-sta"](Source(path))
    assert first.record.problem_id == "AB1CD_1" and second.record.problem_id == "AB1CD_3"
    assert first.record.answer == '<answer>{"time": [0.0, 6.9]}</answer>'
    assert first.record.problem == (
        "<video>When does this happen in the video: a person opens \\<image> a door."
    )
    assert second.record.problem.endswith(": the person ##closes it.")
    assert first.record.videos == (folder / "AB1CD.mp4",) and first.record.data_source == "Charades-STA"


def test_charades_as_rows(folder: Path) -> None:
    row = {"video": "AB1CD.mp4", "caption": "person opens a door.", "timestamp": [0, 6.9]}
    rows = write_rows(folder / "test.json", [row, {**row, "timestamp": "[1.5, 2]"}])
    first, second = LAYOUTS["charades-sta-lmms"](Source(rows))
    assert (first.record.problem_id, second.record.problem_id) == ("AB1CD_1", "AB1CD_2")
    assert second.record.answer == '<answer>{"time": [1.5, 2]}</answer>'


def test_charades_as_parquet(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    from pyarrow import parquet

    rows = [{"video": "AB1CD.mp4", "caption": "person opens a door.", "timestamp": [0.5, 6.9]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "test.parquet")
    (sample,) = LAYOUTS["charades-sta-lmms"](Source(folder / "test.parquet"))
    assert sample.record.answer == '<answer>{"time": [0.5, 6.9]}</answer>'
    parquet.write_table(pyarrow.Table.from_pylist([{"video": "AB1CD.mp4"}]), folder / "test.parquet")
    with pytest.raises(SourceError, match=r"test\.parquet: has no column caption, timestamp \(has: video\)"):
        list(LAYOUTS["charades-sta-lmms"](Source(folder / "test.parquet")))


def test_activitynet_captions(folder: Path) -> None:
    value = {
        "v_xyz": {
            "duration": 9.5,
            "timestamps": [[0, 1.2], [1.0, 9.5]],
            "sentences": [" A man. ", "He jumps."],
        }
    }
    path = folder / "val_2.json"
    path.write_text(json.dumps(value))
    first, second = LAYOUTS["activitynet-captions"](Source(path, media_root=folder / "videos"))
    assert (first.record.problem_id, second.record.problem_id) == ("v_xyz_0", "v_xyz_1")
    assert first.record.problem.endswith(": A man.") and first.record.videos == (
        folder / "videos" / "v_xyz.mkv",
    )
    assert second.record.answer == '<answer>{"time": [1.0, 9.5]}</answer>'


def test_anet_rtl(folder: Path) -> None:
    row = {
        "vid": "xyz",
        "duration": 9.5,
        "question_id": 4,
        "question": "When does she wave?",
        "answer": "<1.25> <7.5> She waves because she leaves.",
    }
    (sample,) = LAYOUTS["anet-rtl"](
        Source(write_rows(folder / "annot.json", [row]), media_root=folder / "videos")
    )
    assert sample.record.problem_id == "v_xyz_4" and sample.record.problem == "<video>When does she wave?"
    assert sample.record.answer == '<answer>{"time": [1.25, 7.5]}</answer>'
    assert sample.facts == {"video": "v_xyz", "duration": 9.5, "explanation": "She waves because she leaves."}


def test_training_answers_of_anet_rtl_without_times_are_counted(folder: Path) -> None:
    pairs = [{"q": "When?", "a": "<3> <5> It starts."}, {"q": "Why?", "a": "Because."}]
    path = folder / "train.json"
    path.write_text(json.dumps({"v_xyz": {"duration": 9, "QA": pairs}}))
    bad = BadRecords()
    (sample,) = LAYOUTS["anet-rtl"](Source(path, media_root=folder / "videos", bad=bad))
    assert sample.record.answer == '<answer>{"time": [3.0, 5.0]}</answer>'
    assert dict(bad.left_out) == {"answer: has no two times": 1}


@pytest.mark.parametrize(
    ("layout", "content", "said"),
    [
        (
            "charades-sta",
            "AB1CD 3 1##a##b",
            r"a\.json: row 1 \(video AB1CD\): start and end: .*needs 0 <= start < end",
        ),
        ("charades-sta", "AB1CD x 1##a", r"row 1 \(video AB1CD\): start: must be seconds, is 'x'"),
        ("charades-sta", "AB1CD 0 1", r"row 1 .*: caption: is empty"),
        ("charades-sta", "\nZZ 0 1##a", r"row 2 \(video ZZ\): video: no such file .*ZZ\.mp4"),
        ("charades-sta", "AB1CD", r"row 1 .*: start: is missing"),
        ("charades-sta", b"\xff", "is not UTF-8"),
        ("charades-sta", "", "holds no sample"),
        (
            "charades-sta-lmms",
            [{"video": "AB1CD", "caption": "a", "timestamp": 3}],
            "timestamp: must be a list, is int",
        ),
        (
            "charades-sta-lmms",
            [{"video": "AB1CD", "caption": "a", "timestamp": [1]}],
            r"timestamp: must be \[start, end\]",
        ),
        ("charades-sta-lmms", [{"caption": "a", "timestamp": [1, 2]}], "video: is missing"),
        (
            "activitynet-captions",
            {"AB1CD": {"timestamps": [[0, 1]], "sentences": []}},
            "not as many as sentences: 1, 0",
        ),
        ("activitynet-captions", {"AB1CD": [1]}, "AB1CD: must be an object"),
        ("activitynet-captions", [], "must be an object, is list"),
        ("activitynet-captions", "{", "is not JSON"),
        (
            "anet-rtl",
            [{"vid": "q", "question": "a", "answer": "<1> b"}],
            "answer: must hold two times such as <12.5>",
        ),
        (
            "anet-rtl",
            [{"vid": "q", "question": "a", "answer": "<1> <2> b", "duration": 3}],
            r"vid: no such file .*v_q\.mp4",
        ),
    ],
)
def test_malformed_files_are_one_line(folder: Path, layout: str, content: object, said: str) -> None:
    path = folder / "a.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SourceError, match=said) as raised:
        list(LAYOUTS[layout](Source(path)))
    assert "\n" not in str(raised.value) and str(raised.value).startswith(str(path))


def test_a_malformed_row_can_be_left_out(folder: Path) -> None:
    path = folder / "charades_sta_test.txt"
    path.write_text("AB1CD 3 1##a\nAB1CD 1 3##b\nAB1CD 5 4##c\n")
    bad = BadRecords("skip")
    (sample,) = LAYOUTS["charades-sta"](Source(path, bad=bad))
    assert sample.record.problem_id == "AB1CD_2" and bad.count == 2
