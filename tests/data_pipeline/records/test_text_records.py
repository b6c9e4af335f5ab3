"""Records without media: read, asked, made into examples, packed beside media, stored, checked and shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onethinker_jax.data_pipeline.batches.bin_packing import BatchShape
from onethinker_jax.data_pipeline.batches.loader import RecordStream, TrainingBatches
from onethinker_jax.data_pipeline.batches.mixture import Mixture
from onethinker_jax.data_pipeline.batches.packing import pack_groups, pack_rows, stack_prompts
from onethinker_jax.data_pipeline.check.__main__ import main as check
from onethinker_jax.data_pipeline.drawing.views import view_record
from onethinker_jax.data_pipeline.processor.example import Example
from onethinker_jax.data_pipeline.processor.processor import Processor
from onethinker_jax.data_pipeline.processor.prompts import (
    OWN_PROMPTS,
    PromptError,
    Prompts,
    instruction,
    question_text,
)
from onethinker_jax.data_pipeline.records import tfds_builder
from onethinker_jax.data_pipeline.records.record import Record, RecordError, read_records, task_of
from onethinker_jax.data_pipeline.records.record_archive import open_records
from onethinker_jax.tasks import TASKS, Task
from tests.data_pipeline.making import rl_row, sft_row, write_image, write_rows, write_video

TEXT = {"images": ..., "data_type": "text", "problem": "What is 3 + 4?", "options": ...}
TEXT_TASKS = ("multiple choice", "numerical", "regression", "math", "open-ended")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "a.png", 64, 64)
    return tmp_path


def text_row(number: int = 1, **changes: Any) -> dict:
    """An RL row without media."""
    return rl_row(**{**TEXT, "problem_id": number, "problem_type": "math", "answer": "7", **changes})


def text_sft_row(question: str = "What is 3 + 4?", answer: str = "7", **changes: Any) -> dict:
    """An SFT row that says nothing of media."""
    row = sft_row(question, answer, **{"images": ..., **changes})
    row["messages"][0]["content"] = question
    return {key: value for key, value in row.items() if value is not ...}


def one(folder: Path, row: dict) -> Record:
    (record,) = read_records(write_rows(folder / "rows.json", [row]))
    return record


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", TEXT_TASKS)
@pytest.mark.parametrize("empty", [..., [], None])
def test_rl_and_evaluation_rows_that_say_text(folder: Path, kind: str, empty: Any) -> None:
    about = {"problem_type": kind, "images": empty, "videos": empty}
    if kind == "multiple choice":
        about |= {"options": ["A. 7", "B. 8"], "answer": "A"}
    rl = one(folder, text_row(**about))
    evaluated = one(folder, text_row(**about, solution=about.get("answer", "7"), path=empty or None))
    for record in (rl, evaluated):
        assert record.data_type == "text" and record.images == record.videos == ()
        assert task_of(record) == Task(kind, "text") in TASKS
        assert record.problem == "What is 3 + 4?"


@pytest.mark.parametrize("media", [{}, {"images": []}, {"images": [], "videos": []}, {"images": None}])
@pytest.mark.parametrize("said", [{}, {"data_type": "text"}, {"data_type": None}])
def test_sft_rows_need_not_say_it(folder: Path, media: dict, said: dict) -> None:
    plain = one(folder, text_sft_row(**media, **said))
    assert (
        plain.data_type == "text"
        and str(task_of(plain)) == "messages (text)"
        and plain.answer == "<answer>7</answer>"
    )
    typed = one(folder, text_sft_row(problem_type="math", **media, **said))
    assert str(task_of(typed)) == "math (text)"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (text_row(images=["a.png"]), "data_type: is 'text', but the media are 'image'"),
        (text_row(problem="<image>What?"), "problem: 1 <image> for 0 image files"),
        (text_row(problem="What is in <video>?"), "problem: 1 <video> for 0 video files"),
        (text_row(data_type="image"), "images: no media given"),
        (text_row(data_type="video"), "videos: no media given"),
        (text_row(data_type="video-image"), "images: no media given"),
        (text_row(data_type=...), "data_type: is missing (that of a question without media is 'text')"),
        (text_row(path="a.png", solution="7"), "path: names media, but data_type is 'text'"),
        (
            text_row(path=None, additional_path=["a.png"]),
            "additional_path: names media, but data_type is 'text'",
        ),
        (text_row(problem_type="OCR"), "data_type: OCR has no 'text' form"),
        (text_row(problem_type="tracking"), "data_type: tracking has no 'text' form"),
        (text_row(problem_type="segmentation"), "data_type: segmentation has no 'text' form"),
        (text_row(problem_type="spatial grounding"), "data_type: spatial grounding has no 'text' form"),
        (text_row(problem_type="temporal grounding"), "data_type: temporal grounding has no 'text' form"),
        (text_sft_row("<image>What?"), "messages: 1 <image> for 0 image files"),
        (text_sft_row(data_type="image"), "images: no media given"),
        (text_sft_row(problem_type="OCR"), "data_type: OCR has no 'text' form"),
        (sft_row(data_type="text"), "data_type: is 'text', but the media are 'image'"),
    ],
)
def test_what_does_not_go_together_is_one_line(folder: Path, row: dict, message: str) -> None:
    file = write_rows(folder / "rows.json", [row])
    with pytest.raises(RecordError) as caught:
        read_records(file)
    assert message in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ asking


def test_questions_are_asked_in_the_words_of_their_problem_type(folder: Path) -> None:
    record = one(folder, text_row())
    assert question_text(record) == f"What is 3 + 4?\n{instruction(Task('math', 'image'))}"
    assert OWN_PROMPTS.template(Task("math", "text")) == OWN_PROMPTS.template(Task("math", "image"))


def test_prompt_files_from_before_there_were_text_tasks(tmp_path: Path) -> None:
    """As `Prompts.to_json` wrote them: every task but these named, and no default."""
    old = {str(task): f"{task} {{question}}" for task in TASKS if task.medium != "text"}
    old |= {task: f"{text} {{options}}" for task, text in old.items() if task.startswith("multiple choice")}
    (tmp_path / "prompts.json").write_text(json.dumps(old))
    prompts = Prompts.from_file(tmp_path / "prompts.json")
    assert prompts.template(Task("math", "text")) == "math (image) {question}"
    assert prompts.template(Task("multiple choice", "text")) == "multiple choice (image) {question} {options}"
    for more, expected in (
        ({"default": "D {question}"}, "D {question}"),
        ({"default": "D {question}", "math": "M {question}"}, "M {question}"),
        ({"math": "M {question}", "math (text)": "T {question}"}, "T {question}"),
    ):
        several = Prompts({**old, **more})
        assert several.template(Task("math", "text")) == expected
        assert (
            several.template(Task("multiple choice", "text"))
            == "multiple choice (image) {question} {options}"
        )
    assert Prompts.from_file(tmp_path / "prompts.json").to_json() == prompts.to_json()
    (tmp_path / "again.json").write_text(prompts.to_json())
    assert (
        Prompts.from_file(tmp_path / "again.json").template(Task("math", "text")) == "math (image) {question}"
    )
    with pytest.raises(PromptError, match=r"'OCR \(text\)' is no task .* or ' \(text\)'"):
        Prompts({**old, "OCR (text)": "{question}"})


# ------------------------------------------------------------------------------------------------ examples


def test_an_example_without_media(folder: Path, processor: Processor) -> None:
    """Positions count plainly on all three axes; nothing of it is a picture; the answer alone is a target."""
    example = processor.training(one(folder, text_sft_row()))
    plain = np.broadcast_to(np.arange(len(example.tokens)), (3, len(example.tokens)))
    np.testing.assert_array_equal(example.positions, plain)
    assert example.next_position == len(example.tokens)
    assert (
        example.patches.shape == (0, 1536) and len(example.grids) == 0 and (example.visual_index == -1).all()
    )
    target = processor.decode(example.tokens[example.loss_mask])
    assert target == "<think>I look.</think>\n<answer>7</answer>"
    prompt = processor.prompt(one(folder, text_row()))
    assert processor.tokenizer.decode(prompt.tokens) == (
        f"<|im_start|>user\nWhat is 3 + 4?\n{instruction(Task('math', 'text'))}<|im_end|>\n<|im_start|>assistant\n"
    )


def mixed(folder: Path, count: int = 12) -> list[dict]:
    """Rows of text, of an image and of a video by turns."""
    write_video(folder / "v.mp4", [i / 4 for i in range(8)])
    rows = []
    for number in range(count):
        about = {"problem_id": number, "data_source": f"source {number % 3}"}
        if number % 3 == 0:
            row = text_sft_row(f"What is {number} + 4? " * (1 + number % 5), str(number + 4), **about)
        elif number % 3 == 1:
            row = sft_row(f"What is it, {number}?", **about)
        else:
            row = sft_row(f"What is it, {number}?", images=..., videos=["v.mp4"], **about)
            row["messages"][0]["content"] = f"<video>What happens, {number}?"
            del row["images"]
        rows.append(row)
    return rows


def test_packed_rows_hold_text_and_media_as_they_are_alone(folder: Path, processor: Processor) -> None:
    records = read_records(write_rows(folder / "sft.json", mixed(folder)))
    examples = [processor.training(record) for record in records]
    assert {len(example.patches) > 0 for example in examples} == {True, False}
    batch, left = pack_rows(examples, rows=6, tokens=320, patches=256)
    assert not left and batch.inputs.vision is not None
    inputs, patches, seen = batch.inputs, np.asarray(batch.inputs.vision.patches), 0
    for row in range(6):
        for segment in range(1, int(np.max(inputs.segment_ids[row])) + 1):
            cells = np.flatnonzero(inputs.segment_ids[row] == segment)
            example = next(e for e in examples if e.tokens.tolist() == inputs.tokens[row, cells].tolist())
            np.testing.assert_array_equal(inputs.positions[row][:, cells], example.positions)
            visual = inputs.visual_index[row, cells]
            np.testing.assert_array_equal(visual >= 0, example.visual_index >= 0)
            merged = patches[row].reshape(-1, 4, 1536)[visual[visual >= 0]]
            np.testing.assert_array_equal(merged.reshape(-1, 1536), example.patches)
            np.testing.assert_array_equal(batch.target_mask[row, cells[:-1]], example.loss_mask[1:])
            seen += 1
    assert seen == len(examples)


@pytest.mark.parametrize("patches", [0, 64])
def test_batches_of_text_alone_have_the_shapes_of_any(
    folder: Path, processor: Processor, patches: int
) -> None:
    """In the packing of rows, of prompts, and of groups; also where the patches have another size than ours."""
    prompts = [processor.prompt(one(folder, text_row(number))) for number in range(3)]
    packed = pack_rows(prompts, rows=2, tokens=200, patches=patches)[0].inputs
    stacked, _ = stack_prompts(prompts, tokens=100, patches=patches)
    completions = [np.arange(1, 5, dtype=np.int32)] * 2
    (group,) = pack_groups([(prompts[0], completions)], rows=2, tokens=200, patches=patches)
    for inputs, rows in ((packed, 2), (stacked, 3), (group.batch.inputs, 2)):
        assert (inputs.vision is None) == (patches == 0)
        if inputs.vision is not None:
            assert inputs.vision.patches.shape == (rows, patches, 1536)
            assert inputs.vision.patches.dtype == np.uint8
            assert not inputs.vision.frame_ids.any()
        assert (inputs.visual_index == -1).all()
    small = Example(**{**vars(prompts[0]), "patches": np.zeros((0, 1176), np.uint8)})
    vision = pack_rows([small], rows=1, tokens=200, patches=patches)[0].inputs.vision
    assert vision is None or vision.patches.shape == (1, patches, 1176)


def test_text_in_a_mixture(folder: Path, processor: Processor) -> None:
    """Mixed by task and by source; some rows of the stream's batches hold no media."""
    records = read_records(write_rows(folder / "sft.json", mixed(folder)))
    stream = RecordStream(records, seed=0, mixture=Mixture({"messages (text)": 2.0}))
    drawn = [str(task_of(stream.at(number))) for number in range(160)]
    counts = {task: drawn.count(task) for task in set(drawn)}
    assert counts == {"messages (text)": 80, "messages (image)": 40, "messages (video)": 40}
    with TrainingBatches(
        RecordStream(records, seed=0, mixture=Mixture(sources={"source 0": 3.0})),
        processor,
        BatchShape(2, 128, 64),
        window=8,
        prefetch=0,
    ) as batches:
        made = [next(batches) for _ in range(8)]
    shapes = {
        (batch.inputs.tokens.shape, np.asarray(batch.inputs.vision.patches).shape)  # type: ignore[union-attr]
        for batch in made
    }
    assert shapes == {((2, 128), (2, 64, 1536))}
    media = [(np.asarray(batch.inputs.vision.frame_ids) > 0).any(1) for batch in made]  # type: ignore[union-attr]
    assert not np.all(media) and np.any(media)


# ------------------------------------------------------------------------------------------------ tools


@pytest.mark.parametrize("kind", ["mixed", "text alone"])
def test_a_stored_corpus_is_the_same(folder: Path, processor: Processor, kind: str) -> None:
    pytest.importorskip("tensorflow_datasets")
    rows = mixed(folder) if kind == "mixed" else [text_sft_row(problem_id=number) for number in range(5)]
    file = write_rows(folder / "sft.json", rows)
    assert tfds_builder.main([str(file), "--out", str(folder / "made"), "--shard-bytes", "1000"]) == 0
    stored, plain = open_records(folder / "made"), read_records(file)
    assert len(stored) == len(plain) and "messages (text)" in stored.table.task_names
    for ours, theirs in zip(stored, plain, strict=True):
        assert (ours.data_type, ours.problem, ours.messages) == (
            theirs.data_type,
            theirs.problem,
            theirs.messages,
        )
        mine, other = processor.training(ours), processor.training(theirs)
        np.testing.assert_array_equal(mine.tokens, other.tokens)
        np.testing.assert_array_equal(mine.patches, other.patches)


def test_the_check_counts_and_shows_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_rows(
        folder / "rl.json", [text_row(1), text_row(2, problem="Is <b> a tag?"), rl_row(problem_id=3)]
    )
    assert check([str(file), "--out", str(folder / "out"), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "math (text)" in said and "3 good records, 0 bad" in said
    counts = json.loads((folder / "out" / "counts.json").read_text())
    assert counts["tasks"] == {"math (text)": 2, "multiple choice (image)": 1}
    assert counts["modalities"] == {"text": 2, "image": 1}
    page = (folder / "out" / "index.html").read_text()
    assert page.count("<article") == 3 and page.count("<img") == 1
    assert "<h2>math (text)</h2>" in page and "Is &lt;b&gt; a tag?" in page


def test_a_view_of_nothing(folder: Path) -> None:
    view = view_record(one(folder, text_row()))
    assert (
        view.frames == []
        and view.times is None
        and view.duration == 0.0
        and view.question == "What is 3 + 4?"
    )


def test_an_empty_answer_is_named_where_no_problem_type_is(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "<answer> </answer>"},
    ]
    (tmp_path / "sft.json").write_text(json.dumps([{"messages": turns}]))
    with pytest.raises(RecordError, match=r"messages\[-1\]: answer: must be a text that is not empty"):
        read_records(tmp_path / "sft.json")
