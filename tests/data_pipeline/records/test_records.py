"""Reading OneThinker's three JSON layouts, and one-line errors for everything that can be wrong."""

import json
import logging
import tracemalloc

import numpy as np
import pytest

from onethinker_jax.data_pipeline.records import json_rows
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.records.json_rows import BrokenRow, JsonRows
from onethinker_jax.data_pipeline.records.record import RecordError, iter_records, read_records, task_of
from onethinker_jax.rewards.answers import parse_structured, unwrap_answer
from onethinker_jax.rewards.metrics import encode_rle
from onethinker_jax.rewards.option_answers import option_letters
from onethinker_jax.tasks import TASKS, Task
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows

RLE = encode_rle(np.eye(4, dtype=bool))
VIDEO = {"images": ..., "videos": ["v.mp4"], "data_type": "video", "problem": "<video>When?", "options": ...}
MASK = {"segmentation_output": {"segmentation_rle": {"0": RLE}}}
BOX, POINTS = "[1, 2, 3, 4]", "[[1, 2], [3, 4], [5, 6]]"
SEGMENTATION = f'"boxes": {BOX}, "positive_points": {POINTS}'


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
    assert task_of(first) == Task("multiple choice", "image") in TASKS


def test_rows_that_are_only_scored_need_no_media(folder):
    gone = {"images": ..., "answer": ..., "path": "gone.png", "solution": "A", "problem": "What?"}
    mask = {
        "path": "gone.mp4",
        "fps": 2,
        "problem_type": "segmentation",
        "data_type": "video",
        "solution": "",
    }
    mask |= MASK
    rows = [rl_row(**gone), rl_row(**gone, options=[]), rl_row(**{**gone, **mask}, options=[])]
    path = write_rows(folder / "eval.json", rows)
    with pytest.raises(RecordError, match=r"eval\.json: record 1 .*path: no such file"):
        read_records(path)
    chosen, bare, masked = iter_records(path, purpose="heldout", check_media=False)
    assert chosen.images == (folder / "gone.png",) and chosen.answer == "<answer>A</answer>"
    assert bare.options == () and bare.answer == chosen.answer
    assert masked.segmentation is not None and masked.segmentation.size == (4, 4)
    rows[0]["path"] = 7
    with pytest.raises(RecordError, match="path: must be a path"):
        list(iter_records(write_rows(folder / "eval.json", rows), check_media=False))


def test_sft_rows_as_json_lines(folder):
    typed = sft_row(problem_type="OCR", data_type="image", problem_id=3)
    path = write_rows(folder / "sft.jsonl", [sft_row(), typed], lines=True)
    plain, named = read_records(path)
    assert plain.messages is not None and [m["role"] for m in plain.messages] == ["user", "assistant"]
    assert plain.answer == "<answer>A star.</answer>" and plain.problem == "<image>What is it?"
    assert str(task_of(plain)) == "messages (image)" and str(task_of(named)) == "OCR (image)"


def test_evaluation_rows(folder):
    write_image(folder / "c.png", 4, 4)
    common = {"images": ..., "answer": ..., "options": []}
    image = rl_row(
        **common,
        path="c.png",
        problem="Find it.",
        problem_type="segmentation",
        resolution={"width": 4, "height": 4},
        segmentation_output={"segmentation_rle": RLE},
    )
    video = {**image, "path": "v.mp4", "data_type": "video", "fps": 5}
    video["segmentation_output"] = {"segmentation_rle": {"0001": RLE}, "frames": ["0001"]}
    both = rl_row(**common, path="v.mp4", additional_path="b.png", data_type="video-image", solution="A")
    both.update(problem_type="OCR", problem="Read.")
    one, two, three = read_records(write_rows(folder / "eval.json", [image, video, both]))
    assert one.segmentation is not None and one.segmentation.rles == (RLE,) and one.answer == ""
    assert one.segmentation.size == (4, 4) and one.segmentation.times == [0.0]
    assert two.segmentation is not None and two.segmentation.rles == (RLE,)
    assert two.segmentation.names == ("0001",) and two.segmentation.fps == 5
    assert str(task_of(two)) == "segmentation (video)"
    assert (
        three.answer == "<answer>A</answer>"
        and three.images == (folder / "b.png",)
        and len(three.videos) == 1
    )
    assert str(task_of(three)) == "OCR (video)"


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
        ({"data_type": ["image"], "path": "a.png"}, "data_type: must be str, is list"),
        ({"data_type": ..., "path": "a.png"}, "data_type: is missing, which tells what path is"),
        ({"additional_path": "b.png"}, "additional_path: names media, but data_type is 'image'"),
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
        ({"problem": "no placeholder"}, "problem: 0 <image> for 1 image files"),
        ({"options": ["A. one", " "]}, "options: must be a list of strings that are not empty"),
        ({"options": [str(i) for i in range(27)]}, "options: has 27, more than there are letters"),
        ({"answer": "C"}, "answer: multiple choice needs one letter of A to B, has 'C'"),
        ({"answer": "<answer>one</answer>"}, "answer: multiple choice needs one letter of A to B, has 'one'"),
        ({"answer": "<answer>A"}, "answer: its <answer> tags must be one pair, are <answer>"),
        ({"answer": "<answer>A</answer><answer>B</answer>"}, "answer: its <answer> tags must be one pair"),
        ({"answer": "<answer> </answer>"}, "answer: must be a text that is not empty"),
        ({"problem_type": "numerical", "answer": "12 or 13"}, "answer: numerical needs a number, has '12 or"),
        ({"problem_type": "regression", "answer": "3 to 4"}, "answer: regression needs a number, has '3 to"),
        ({"path": "a.png"}, "data_type: is 'image', but the media|problem: 1 <image> for 2 image files"),
        ({**MASK, "fps": 0}, "fps: must be a positive number, is 0"),
        ({**MASK, "resolution": {"width": 3}}, "resolution: must be .width, height. in pixels"),
        ({**MASK, "frames": 3}, "frames: must be a list of frame names"),
        (
            {"segmentation_output": {"segmentation_rle": {"size": [2, 3], "counts": [4, 1]}}},
            "mask '': its runs must be whole numbers that add up to 2 x 3",
        ),
        (
            {"segmentation_output": {"segmentation_rle": {"size": [0, 3], "counts": "1"}}},
            "mask '': size .0, 3. must be whole pixels",
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
def test_errors_are_one_line_errors(folder, changes, message):
    path = write_rows(folder / "rl.json", [rl_row(), rl_row(**changes)])
    with pytest.raises(RecordError, match=message) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}: record 2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("problem_type", "answer", "message"),
    [
        ("temporal grounding", '{"time": 3}', r"answer.time: must be \[start, end\] in seconds, is 3"),
        ("temporal grounding", '{"time": [3, 3]}', r"answer.time: \[3, 3\] needs 0 <= start < end"),
        ("temporal grounding", '{"time": [-1, 3]}', r"answer.time: \[-1, 3\] needs 0 <= start < end"),
        ("temporal grounding", '{"time": [0, NaN]}', "answer.time: must be .start, end. in seconds"),
        ("temporal grounding", "{}", "answer.time: is missing, which temporal grounding needs"),
        ("temporal grounding", "[1, 2]", "answer: must be a JSON object, is a list"),
        ("spatial grounding", '{"boxes": [1, 2]}', r"answer.boxes: must be \[x1, y1, x2, y2\], is \[1, 2\]"),
        (
            "spatial grounding",
            '{"boxes": [1, 2, 3, 1000.5]}',
            r"answer.boxes: \[1, 2, 3, 1000.5\] leaves 0-1000",
        ),
        ("spatial grounding", '{"boxes": [-1, 2, 3, 4]}', r"answer.boxes: \[-1, 2, 3, 4\] leaves 0-1000"),
        ("spatial grounding", '{"boxes": [3, 2, 3, 4]}', "answer.boxes: .* needs x1 < x2 and y1 < y2"),
        ("spatial grounding", '{"boxes": [1, 2, true, 4]}', "answer.boxes: must be .x1, y1, x2, y2."),
        ("tracking", '{"boxes": {}}', "answer.boxes: must be an object of boxes by second"),
        ("tracking", f'{{"boxes": {{"1.5": {BOX}}}}}', "answer.boxes: '1.5' is not a whole second"),
        ("tracking", '{"boxes": {"1": [0, 0, 2000, 1]}}', "answer.boxes: second 1: .* leaves 0-1000"),
        (
            "spatial-temporal grounding",
            f'{{"time": [3.5, 5.5], "boxes": {{"7": {BOX}}}}}',
            "answer.boxes: second 7 is outside the time 3.5 to 5.5",
        ),
        ("segmentation", f"{{{SEGMENTATION}}}", "answer.negative_points: is missing"),
        (
            "segmentation",
            f'{{{SEGMENTATION}, "negative_points": [[1, 2]]}}',
            "answer.negative_points: must be 3 points .x, y., is",
        ),
        (
            "segmentation",
            f'{{{SEGMENTATION}, "negative_points": [[1, 2], [3, 4], [5, 1001]]}}',
            r"answer.negative_points: \[5, 1001\] leaves 0-1000",
        ),
        (
            "segmentation",
            f'{{{SEGMENTATION}, "negative_points": {POINTS}}}',
            "answer.time: is missing, which segmentation needs",
        ),
        (
            "segmentation",
            f'{{{SEGMENTATION}, "negative_points": {POINTS}, "time": -2}}',
            "answer.time: must be seconds from 0 on, is -2",
        ),
    ],
)
def test_errors_of_structured_answers(folder, problem_type, answer, message):
    kind = VIDEO if problem_type != "spatial grounding" else {"options": ...}
    path = write_rows(folder / "rl.json", [rl_row(problem_type=problem_type, answer=answer, **kind)])
    with pytest.raises(RecordError, match=f"record 1 .problem_id 7.: {message}") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("problem_type", "answer"),
    [
        ("temporal grounding", '{"time": [0, 1e3]}'),
        ("spatial-temporal grounding", f'{{"time": [3.5, 5.5], "boxes": {{"3": {BOX}, "6": {BOX}}}}}'),
        ("tracking", f'{{"boxes": {{"0": {BOX}, "31": [0, 0, 1000, 1000.0]}}}}'),
        ("segmentation", f'{{{SEGMENTATION}, "negative_points": {POINTS}, "time": 0}}'),
    ],
)
def test_answers_that_pass_can_be_scored(folder, problem_type, answer):
    row = rl_row(problem_type=problem_type, answer=answer, **VIDEO)
    (record,) = read_records(write_rows(folder / "rl.json", [row]))
    assert parse_structured(unwrap_answer(record.answer), problem_type, "video") is not None
    assert str(record) == f"{folder / 'rl.json'}: record 1 (problem_id 7)"


def test_options_may_bring_their_own_letters(folder):
    assert option_letters(["(B) x", "(C) y"]) == "BC" and option_letters(["B. x", "y"]) == "AB"
    row = rl_row(options=["(B) x", "(C) y"], answer="C")
    assert read_records(write_rows(folder / "rl.json", [row]))[0].answer == "<answer>C</answer>"


def test_the_answer_in_the_last_turn_is_checked(folder):
    row = sft_row(answer='{"boxes": [1, 2, 3, 4000]}', problem_type="spatial grounding", data_type="image")
    with pytest.raises(RecordError, match=r"messages\[-1\]: answer.boxes: .* leaves 0-1000"):
        read_records(write_rows(folder / "sft.json", [row]))


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
    [
        (b"", "is not JSON .it is empty"),
        (b"  \n", "is not JSON .it is empty"),
        (b"[", "record 1: is not JSON .Expecting value at character 1"),
        (b'[{"a": 1} {"b": 2}]', "is not JSON .no comma or . after record 1, at character 10"),
        (b'[{"a": 1}', "is not JSON .no comma or . after record 1"),
        (b"[] x", "is not JSON .text after the list, at character 3"),
        (b'[{"a": 1}, {"b": "torn', "record 2: is not JSON .Unterminated string"),
        (b'[{"a" 1}, {}]', "record 1: is not JSON .Expecting ':' delimiter at character 6"),
        (b"3", "must be a JSON list or JSON lines, starts with '3'"),
        (b"[]", "holds no record"),
        (b"\xff\xfe[\x00", "is UTF-16, must be UTF-8"),
        ('[{"a": 1}]'.encode("utf-16"), "is UTF-16, must be UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "is UTF-16, must be UTF-8"),
        ('[{"a": 1}]'.encode("utf-16-be"), "is UTF-16, must be UTF-8"),
        ('[{"a": 1}]'.encode("utf-32"), "is UTF-32, must be UTF-8"),
        ('[{"a": 1}]'.encode("utf-32-le"), "is UTF-32, must be UTF-8"),
        (b'["\xff"]', "record 1: is not UTF-8 .0xff: invalid start byte, byte 2 of the file"),
        (b'[{"a": "x"},\n{"b": "\xed\xa0\xbd"}]', "record 2: is not UTF-8 .0xed: .*, byte 20 of the file"),
        ('[{"a": "é'.encode()[:-1], "record 1: is not UTF-8 .0xc3: unexpected end of data, byte 8 of"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "rl.json"
    path.write_bytes(content)
    bad = BadRecords("skip")
    with pytest.raises(RecordError, match=message) as caught:
        list(iter_records(path, bad=bad)) if "holds" not in message else read_records(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    with pytest.raises(RecordError, match="cannot be read"):
        read_records(tmp_path / "none.json")


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_rows_do_not_depend_on_where_chunks_end(tmp_path, monkeypatch, chunk, bom):
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
    rows = [
        {"a": 'ü€😀\\"]},', "b": [1.5e-7, -12345, None, True]},
        1234567,
        "x",
        -1.25,
        [],
        {"n": {"m": [{}]}},
    ]
    path = tmp_path / "rows.json"
    for indent, escaped in ((None, True), (2, False)):
        text = json.dumps(rows, indent=indent, ensure_ascii=escaped)
        path.write_bytes(bom + text.encode())
        reading = JsonRows(path)
        assert list(reading) == list(enumerate(rows, 1))
        assert reading.bytes_read == path.stat().st_size
    with pytest.raises(RecordError, match="record 2: is not JSON"):
        path.write_bytes(bom + b'[{"long": "' + b"x" * 100 + b'"}, {"a": nope, "b": "' + b"y" * 100 + b'"}]')
        list(JsonRows(path))


def test_json_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xe2\x80\xa8"}\n{"torn\n{"a": "\xff"}\n[1]')
    rows = dict(JsonRows(path))
    assert list(rows) == [1, 3, 4, 5, 6] and rows[3] == {"a": "\u2028"} and rows[6] == [1]
    for number, text in ((4, '{"torn'), (5, '{"a": "\\xff"}')):
        row = rows[number]
        assert isinstance(row, BrokenRow) and row.text == text
        assert ("is not JSON" if number == 4 else "is not UTF-8 (0xff: invalid") in row.reason


def test_a_large_list_takes_the_memory_of_a_few_rows(folder):
    """48 MB of records; the peak of Python's allocations stays below a tenth of that."""
    row = json.dumps(rl_row(note="z" * 12_000))
    path = folder / "large.json"
    with path.open("w") as file:
        file.write("[" + ",\n".join([row] * 4000) + "]")
    assert path.stat().st_size > 48e6
    tracemalloc.start()
    try:
        count = sum(1 for _ in iter_records(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 4000 and peak < 12e6


def test_many_skips_are_counted_without_flooding_the_console(folder, caplog):
    path = write_rows(folder / "rl.jsonl", [rl_row(), *[rl_row(problem_type="zzz")] * 40], lines=True)
    with caplog.at_level(logging.WARNING):
        read_records(path, on_bad_record="skip", quarantine=folder / "sub" / "bad.jsonl")
    assert len((folder / "sub" / "bad.jsonl").read_text().splitlines()) == 40
    assert len(caplog.records) == 9 and "skipped 40 of 41 records" in caplog.records[-1].message


def test_media_root(folder):
    (folder / "sub").mkdir()
    path = write_rows(folder / "sub" / "rl.json", [rl_row()])
    with pytest.raises(RecordError, match="no such file"):
        read_records(path)
    assert read_records(path, media_root=folder)[0].images == (folder / "a.png",)
