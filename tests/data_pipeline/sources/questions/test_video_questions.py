"""The video data sets' own layouts: what rows become, where videos are found, malformed files."""

import json
import pickle

import pytest

from onethinker_jax.data_pipeline.processor.prompts import question_text
from onethinker_jax.data_pipeline.records.bad_records import BadRecords
from onethinker_jax.data_pipeline.sources.sample import Source, SourceError
from onethinker_jax.data_pipeline.sources.table import LAYOUTS
from tests.data_pipeline.sources import making_videos as making
from tests.data_pipeline.sources.making import png, read, skipped, write_tsv
from tests.data_pipeline.sources.making_videos import OPTIONS, write_json, write_parquet

LETTERED = tuple(f"{letter}. {text}" for letter, text in zip("ABC", OPTIONS, strict=True))


def test_videommmu(tmp_path):
    folder = making.videommmu(tmp_path)
    samples = read(LAYOUTS["videommmu"], folder)
    ids = [sample.record.problem_id for sample in samples]
    names = ("validation_Art_1", "validation_Computer_Science_2")
    assert ids == [f"{track}/{n}" for track in ("Adaptation", "Comprehension", "Perception") for n in names]
    shown, open_, heard, *_ = samples
    assert shown.record.data_type == "video-image"
    assert shown.record.problem == "<video>What comes after <image>? Look at the image."
    assert shown.record.images[0].open("rb").read() == png(60)
    assert shown.record.videos == (folder / "Art" / "validation_Art_1.mp4",)
    assert open_.record.problem == "<video><image>How many?" and open_.record.problem_type == "numerical"
    assert open_.facts["answers"] == ["12", "twelve"] and open_.record.answer == "<answer>12</answer>"
    (image,) = pickle.loads(pickle.dumps(open_.record.images))
    assert image.open("rb").read() == png(61) and image.name == "validation_Computer_Science_2.png"
    assert heard.record.data_type == "video" and heard.record.options == LETTERED
    assert heard.record.problem == "<video>Comprehension of validation_Art_1?"
    assert open_.groups == {"track": "Adaptation", "question_type": "open", "subject": "Computer_Science"}
    assert len(read(LAYOUTS["videommmu"], folder, split="Perception")) == 2
    one = folder / "Perception" / "test-00000-of-00001.parquet"
    assert [s.record.problem_id for s in read(LAYOUTS["videommmu"], one)] == ids[4:]
    with pytest.raises(SourceError, match="has no Parquet file of the track Recall"):
        read(LAYOUTS["videommmu"], folder, split="Recall")


def test_mmvu(tmp_path):
    folder = making.mmvu(tmp_path)
    choice, open_ = read(LAYOUTS["mmvu"], folder)
    assert choice.record.options[4] == "E. nothing" and choice.record.answer == "<answer>E</answer>"
    assert choice.record.videos == (folder / "videos" / "Art" / "0.mp4",)
    assert open_.record.options == () and open_.record.problem_type == "math"
    (only,) = read(LAYOUTS["mmvu"], folder / "validation.json", split="multiple-choice")
    assert only.record.problem_id == "validation_0"
    assert only.groups == {"question_type": "multiple-choice", "subject": "Art"}


def test_videomme_with_and_without_subtitles(tmp_path):
    folder = making.videomme(tmp_path)
    spoken, silent = read(LAYOUTS["video-mme"], folder)
    assert spoken.record.problem == "<video>What happens?" and spoken.record.options == LETTERED
    assert spoken.record.videos == (folder / "data" / "spoken_one.mp4",)
    assert silent.groups["duration"] == "long" and "subtitles" not in silent.groups
    (long,) = read(LAYOUTS["video-mme"], folder, split="long")
    assert long.record.problem_id == "002-1" and long.facts == {
        "question": "What happens?",
        "video": "silent-two",
    }
    file = folder / "videomme" / "test-00000-of-00001.parquet"
    spoken, silent = read(LAYOUTS["video-mme-subtitles"], file)
    said = "<video>Subtitles of the video:\nLook at the sign.\nIt turns.\n\nWhat happens?"
    assert spoken.record.problem == said and silent.record.problem == "<video>What happens?"
    assert [spoken.groups["subtitles"], silent.groups["subtitles"]] == ["yes", "no"]
    (folder / "subtitle" / "spoken_one.srt").write_text("nothing")
    with pytest.raises(SourceError, match=r"spoken_one\.srt: holds no subtitle"):
        read(LAYOUTS["video-mme-subtitles"], folder)
    (folder / "subtitle").rename(folder / "words")
    with pytest.raises(SourceError, match="has no folder subtitle or subtitles beside its videos"):
        read(LAYOUTS["video-mme-subtitles"], folder)


def test_video_holmes(tmp_path):
    folder = making.video_holmes(tmp_path)
    first, second = read(LAYOUTS["video-holmes"], folder)
    assert [first.record.problem_id, second.record.problem_id] == [0, 1]
    assert first.record.options[5] == "F. they" and first.record.answer == "<answer>F</answer>"
    assert second.groups == {"question_type": "TCI"} and second.facts["question_id"] == 2
    assert "<video>Who did it?" in question_text(first.record)


def test_longvideobench(tmp_path):
    folder = making.longvideobench(tmp_path / "lvb")
    two, three = read(LAYOUTS["longvideobench"], folder / "lvb_val.json")
    assert [two.record.answer, three.record.answer] == ["<answer>B</answer>", "<answer>C</answer>"]
    assert three.record.options == LETTERED and three.facts["duration"] == 1.5
    assert two.groups["duration_group"] == "15" and two.groups["question_category"] == "T2A"
    moved = tmp_path / "moved"
    (folder / "videos").rename(moved)
    with pytest.raises(
        SourceError, match=r"lvb_val.json: row 1 \(id xY_1_2\): video_path: no such file .*xY_1"
    ):
        read(LAYOUTS["longvideobench"], folder, media_root=folder / "elsewhere")
    assert len(read(LAYOUTS["longvideobench"], folder, media_root=moved)) == 2
    unchecked = read(LAYOUTS["longvideobench"], folder, media_root=folder / "elsewhere", check_media=False)
    assert unchecked[0].record.videos == (folder / "elsewhere" / "xY_1.mp4",)


@pytest.mark.parametrize("table", [False, True])
def test_longvideo_reason(tmp_path, table):
    folder = making.longvideo_reason(tmp_path, table=table)
    choice, count = read(LAYOUTS["longvideo-reason"], folder)
    assert choice.record.problem == "<video>What happens last?" and choice.record.options == LETTERED
    assert choice.facts["question"].endswith("C. it stays") and choice.record.answer == "<answer>B</answer>"
    assert count.record.problem_type == "numerical" and count.record.answer == "<answer>3</answer>"
    assert count.record.videos == (folder / "longvila_videos" / "v1.mp4",)
    assert [choice.record.problem_id, count.record.problem_id] == [1, 2]


def test_videomathqa(tmp_path):
    folder = making.videomathqa(tmp_path)
    (one,) = read(LAYOUTS["videomathqa"], folder)
    assert one.record.problem_id == 5 and len(one.record.options) == 5
    assert one.record.videos == (folder / "videos" / "m1.MP4",)
    pairs = read(LAYOUTS["videomathqa"], folder, split="mbin")
    assert [pair.record.problem_id for pair in pairs] == ["5-1", "5-2", "5-3"]
    assert {pair.facts["g_index"] for pair in pairs} == {"5"}
    assert pairs[2].record.options == ("A. 0 m", "B. 3 m")
    (spoken,) = read(LAYOUTS["videomathqa-subtitles"], folder)
    assert spoken.record.problem.startswith("<video>Subtitles of the video:\nLook at the sign.\n")
    with pytest.raises(SourceError, match=r"has no split 'test' \(known: mcq, mbin\)"):
        read(LAYOUTS["videomathqa"], folder, split="test")


def test_video_mmlu(tmp_path):
    folder = making.video_mmlu(tmp_path)
    first, second = read(LAYOUTS["video-mmlu"], folder)
    assert first.facts["questions"] == second.facts["questions"] == making.QUESTIONS
    assert first.record.problem_type == "open-ended" and first.record.problem_id == 0
    assert first.record.answer == "<answer>What's the sum? It's 12.\nWhose? Euler's</answer>"
    assert second.groups == {"discipline": "physics"}
    assert len(read(LAYOUTS["video-mmlu"], folder / "Video_MMLU_CAP.tsv", split="math")) == 1


def test_a_video_with_a_picture_becomes_a_prompt(tmp_path, processor):
    shown, *_ = read(LAYOUTS["videommmu"], making.videommmu(tmp_path))
    example = processor.prompt(shown.record)
    assert [grid[0] > 1 for grid in example.grids] == [True, False]  # the video comes first


MAKERS = {
    "videommmu": (making.videommmu, "Adaptation/test-00000-of-00001.parquet"),
    "mmvu": (making.mmvu, "validation.json"),
    "video-mme": (making.videomme, "videomme/test-00000-of-00001.parquet"),
    "video-holmes": (making.video_holmes, "test_Video-Holmes.json"),
    "longvideobench": (making.longvideobench, "lvb_val.json"),
    "longvideo-reason": (making.longvideo_reason, "test.jsonl"),
    "videomathqa": (making.videomathqa, "mcq/test-00000-of-00001.parquet"),
    "video-mmlu": (making.video_mmlu, "Video_MMLU_CAP.tsv"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_files_that_are_not_what_they_should_be(tmp_path, name):
    make, place = MAKERS[name]
    folder = make(tmp_path)
    file = folder / place
    for content in (b"", b"\xff\xfe no", b"PAR1 cut", b"[1, 2]", b'[{"a": '):
        file.write_bytes(content)
        with pytest.raises(SourceError) as raised:
            read(LAYOUTS[name], folder)
        assert str(file) in str(raised.value) and "\n" not in str(raised.value)
    file.unlink()
    if name != "videommmu":
        with pytest.raises(SourceError, match=str(folder)):
            read(LAYOUTS[name], folder)
    with pytest.raises(SourceError, match="gone"):
        read(LAYOUTS[name], tmp_path / "gone")


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_column_and_a_missing_video_are_named(tmp_path, name):
    make, place = MAKERS[name]
    folder = make(tmp_path)
    for film in [*folder.rglob("*.mp4"), *folder.rglob("*.MP4")]:
        film.rename(film.with_suffix(".gone"))
    with pytest.raises(
        SourceError, match=r"row 1( \(.*\))?: (id|videoI?D?s?|video ID|video_path): no such file"
    ):
        read(LAYOUTS[name], folder)
    bad = BadRecords("skip")
    with pytest.raises(SourceError, match=r"holds no .* that can be used: .*no such file \(\d"):
        list(LAYOUTS[name](Source(folder, bad=bad)))
    ((kind, count),) = bad.left_out.items()
    assert kind.endswith("no such file") and count == bad.count
    file = folder / place
    if file.suffix == ".parquet":
        write_parquet(file, [{"id": "x", "videos": "x", "videoID": "x", "question_id": 1}])
        expected = r"has no column question, options, answer"
    elif file.suffix == ".tsv":
        write_tsv(file, [{"index": 1, "video": "x"}])
        expected = "has no column discipline, question"
    else:
        write_json(file, [{"id": "x"}])
        expected = r"row 1( \(id x\))?: \w+( ID)?: (is missing|must be an object of letters)"
    with pytest.raises(SourceError, match=expected):
        read(LAYOUTS[name], folder)


def test_malformed_rows(tmp_path):
    folder = making.longvideobench(tmp_path / "lvb")
    rows = json.loads((folder / "lvb_val.json").read_text())
    many = {"candidates": [str(number) for number in range(27)], "correct_choice": 26}
    wrong = [{"correct_choice": 3}, {"candidates": "x"}, many]
    write_json(folder / "lvb_val.json", [rows[0], *({**rows[1], **one} for one in wrong)])
    samples, bad = skipped(LAYOUTS["longvideobench"], folder)
    assert len(samples) == 1 and bad.left_out == {
        "correct_choice: is no index of candidates": 1,
        "candidates: cannot be read as a Python or JSON value": 1,
        "candidates: has more than 26 options": 1,
    }
    folder = making.video_mmlu(tmp_path / "mmlu")
    row = {"index": 1, "video": "lecture 1.mp4", "discipline": "Math"}
    wrong = ["[{'question': 'Why?'}]", "[]", "__import__('os')", "{'question': 'a', 'answer': 'b'}"]
    good = str(making.QUESTIONS)
    texts = [good, *wrong]
    write_tsv(
        folder / "Video_MMLU_CAP.tsv", [row | {"index": n, "question": text} for n, text in enumerate(texts)]
    )
    samples, bad = skipped(LAYOUTS["video-mmlu"], folder)
    assert len(samples) == 1 and bad.left_out == {
        "question: must hold objects with a question and an answer": 1,
        "question: is an empty list": 1,
        "question: cannot be read as a Python or JSON value": 1,
        "question: must be a list": 1,
    }
    folder = making.mmvu(tmp_path / "mmvu")
    rows = json.loads((folder / "validation.json").read_text())
    write_json(folder / "validation.json", [{**rows[0], "answer": "F"}, {**rows[0], "choices": []}])
    with pytest.raises(
        SourceError, match=r"row 1 \(id validation_0\): answer: .* needs one letter of A to E, has 'F'"
    ):
        read(LAYOUTS["mmvu"], folder)


def test_a_broken_line_is_left_out(tmp_path):
    folder = making.longvideo_reason(tmp_path)
    file = folder / "test.jsonl"
    file.write_text(file.read_text() + "\n{oops\n")
    samples, bad = skipped(LAYOUTS["longvideo-reason"], folder)
    assert len(samples) == 2 and bad.left_out == {"a line that is not JSON": 1}
