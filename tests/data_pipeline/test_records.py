"""Reading OneThinker's three JSON layouts, and one-line errors for every kind of fault."""

import json
import logging

import pytest

from onethinker_jax.data_pipeline.records import PROBLEM_TYPES, TASKS, RecordError, read_records, task_of
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows

RLE = {"size": [4, 4], "counts": "0a0"}
VIDEO = {"images": ..., "videos": ["v.mp4"], "data_type": "video", "problem": "<video>When?", "options": ...}


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png")
    (tmp_path / "v.mp4").write_bytes(b"not read here")
    return tmp_path


def test_rl_rows(folder):
    path = write_rows(folder / "rl.json", [rl_row(), rl_row(answer="A", problem_id="x")])
    first, second = read_records(path)
    assert (first.problem_id, first.problem_type, first.options) == (
        7,
        "multiple choice",
        ("A. one", "B. two"),
    )
    assert first.images == (folder / "a.png",) and first.videos == () and first.messages is None
    assert second.answer == "<answer>A</answer>"
    assert task_of(first) == "multiple choice (image)" in TASKS
    assert len(TASKS) == 18 and len(PROBLEM_TYPES) == 11


def test_sft_rows_as_json_lines(folder):
    typed = sft_row(problem_type="OCR", data_type="image", problem_id=3)
    path = write_rows(folder / "sft.jsonl", [sft_row(), typed], lines=True)
    plain, named = read_records(path)
    assert plain.messages is not None and [m["role"] for m in plain.messages] == ["user", "assistant"]
    assert plain.answer == "<answer>A star.</answer>" and plain.problem == "<image>What is it?"
    assert task_of(plain) == "messages (image)" and task_of(named) == "OCR (image)"


def test_evaluation_rows(folder):
    common = {"images": ..., "answer": ..., "options": []}
    image = rl_row(
        **common,
        path="a.png",
        problem="Find it.",
        problem_type="segmentation",
        resolution={"width": 96, "height": 64},
        segmentation_output={"segmentation_rle": RLE},
    )
    video = {**image, "path": "v.mp4", "data_type": "video", "fps": 5}
    video["segmentation_output"] = {"segmentation_rle": {"0001": RLE}, "frames": ["0001"]}
    both = rl_row(**common, path="v.mp4", additional_path="b.png", data_type="video-image", solution="A")
    both.update(problem_type="OCR", problem="Read.")
    one, two, three = read_records(write_rows(folder / "eval.json", [image, video, both]))
    assert one.segmentation == {**RLE, "resolution": {"width": 96, "height": 64}} and one.answer == ""
    assert two.segmentation is not None and two.segmentation["rle"] == {"0001": RLE}
    assert two.segmentation["frames"] == ["0001"] and two.segmentation["fps"] == 5
    assert task_of(two) == "segmentation (video)"
    assert (
        three.answer == "<answer>A</answer>"
        and three.images == (folder / "b.png",)
        and len(three.videos) == 1
    )
    assert task_of(three) == "OCR (video)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"problem_type": "multiple-choice"},
            "problem_type: unknown 'multiple-choice' .did you mean 'multiple ch",
        ),
        ({"problem_type": "zzz"}, "problem_type: unknown 'zzz' .known: multiple choice"),
        ({"problem_type": ...}, "problem_type: is missing"),
        ({"problem_type": "tracking"}, "data_type: tracking has no 'image' form"),
        ({"data_type": "audio"}, "data_type: unknown 'audio'"),
        ({"data_type": "video"}, "data_type: is 'video', but the media are 'image'"),
        ({"images": ["gone.png"]}, "images: no such file .*gone.png"),
        ({"images": []}, "images: no media given"),
        ({"images": [3]}, "images: must be a path or a list of paths"),
        ({"images": ["a.png", "b.png"]}, "problem: 1 <image> for 2 image files"),
        ({"problem": "<image><video>?"}, "problem: 1 <video> for 0 video files"),
        ({"problem": ""}, "problem: is empty"),
        ({"problem": 5}, "problem: must be str, is int"),
        ({"problem_id": [1]}, "problem_id: must be int or str, is list"),
        ({"options": []}, "options: multiple choice needs at least 2, has 0"),
        ({"options": [1, 2]}, "options: must be a list of strings"),
        ({"answer": ...}, "answer: is missing"),
        ({"answer": " "}, "answer: must be a text that is not empty"),
        (
            {"problem_type": "spatial grounding", "answer": "x"},
            "answer: is not JSON, which spatial grounding",
        ),
        (
            {"problem_type": "spatial grounding", "answer": '{"boxes": [1, 2]}'},
            "needs 'boxes' as box, has .1, 2",
        ),
        (
            {**VIDEO, "problem_type": "temporal grounding", "answer": '{"time": 3}'},
            "needs 'time' as span, has 3",
        ),
        ({"messages": []}, "messages: must hold a user turn"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: must have a role and a content"),
        ({"messages": [{"role": "human", "content": ""}]}, r"messages\[0\].role: unknown 'human'"),
        ({"segmentation_output": {"x": 1}}, "segmentation_output: must hold segmentation_rle"),
        (
            {"segmentation_output": {"segmentation_rle": {"0": {"size": [1]}}}},
            "mask '0' must hold size and counts",
        ),
    ],
)
def test_faults_are_one_line_errors(folder, changes, message):
    path = write_rows(folder / "rl.json", [rl_row(), rl_row(**changes)])
    with pytest.raises(RecordError, match=message) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}: record 2")
    assert "\n" not in str(caught.value)


def test_sft_placeholders_must_match(folder):
    row = sft_row()
    row["messages"][0]["content"] = "no placeholder"
    with pytest.raises(RecordError, match="messages: 0 <image> for 1 image files"):
        read_records(write_rows(folder / "sft.json", [row]))


def test_skip_writes_a_quarantine_file(folder, caplog):
    rows = [rl_row(), rl_row(problem_type="zzz", problem_id=9), rl_row(images=["gone.png"])]
    path = folder / "rl.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), '{"torn']))
    with caplog.at_level(logging.WARNING):
        records = read_records(path, on_bad_record="skip")
    assert len(records) == 1 and "skipped 3 of 4" in caplog.text
    quarantine = folder / "rl.jsonl.quarantine.jsonl"
    entries = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [entry["record"] for entry in entries] == [2, 3, 4]
    assert entries[0]["row"] == rows[1] and "zzz" in entries[0]["reason"] and "JSON" in entries[2]["reason"]
    write_rows(path, rows[:1], lines=True)
    read_records(path, on_bad_record="skip")
    assert not quarantine.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is not JSON"), ("[", "is not JSON"), ("3", "must be a JSON list"), ("[]", "holds no record")],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "rl.json"
    path.write_text(content)
    with pytest.raises(RecordError, match=message):
        read_records(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_records(tmp_path / "none.json")


def test_media_root(folder):
    (folder / "sub").mkdir()
    path = write_rows(folder / "sub" / "rl.json", [rl_row()])
    with pytest.raises(RecordError, match="no such file"):
        read_records(path)
    assert read_records(path, media_root=folder)[0].images == (folder / "a.png",)
