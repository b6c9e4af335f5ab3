"""The prompt of every task: short, in one wording, placeholders kept and in order."""

from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.prompts import chat_messages, instruction, question_text
from onethinker_jax.data_pipeline.records import TASKS, Record


def record(problem: str, problem_type: str, data_type: str = "image", **more) -> Record:
    fields = {
        "problem_id": 1,
        "options": (),
        "answer": "<answer>B</answer>",
        "images": (Path("a.png"),) if data_type == "image" else (),
        "videos": (Path("a.mp4"),) if data_type == "video" else (),
        "data_source": "",
    }
    return Record(problem=problem, problem_type=problem_type, data_type=data_type, **{**fields, **more})


@pytest.mark.parametrize("task", TASKS)
def test_instruction_is_short_and_asks_for_both_tags(task):
    problem_type, data_type = task[:-1].rsplit(" (", 1)
    text = instruction(problem_type, data_type)
    assert "<think></think>" in text and "<answer></answer>" in text
    assert len(text.split()) <= 30


def test_every_task_has_its_own_wording():
    wordings = {instruction(*task[:-1].rsplit(" (", 1)) for task in TASKS}
    assert len(wordings) == 12  # eleven problem types, segmentation twice


def test_unknown_problem_type_is_an_error():
    with pytest.raises(KeyError):
        instruction("guessing", "image")


def test_placeholder_stays_where_the_problem_has_it():
    text = question_text(record("What is in <image> here?", "OCR"))
    assert text == "What is in <image> here?\n" + instruction("OCR", "image")


def test_missing_placeholders_come_first_videos_before_images():
    both = record("Which one?", "open-ended", "video-image", images=(Path("a.png"),), videos=(Path("a.mp4"),))
    assert question_text(both).startswith("<video><image>Which one?\n")


@pytest.mark.parametrize("options", [("red", "blue"), ("A. red", "B. blue"), ("A) red", "B) blue")])
def test_options_are_appended_with_letters(options):
    lines = question_text(record("<image>Which?", "multiple choice", options=options)).split("\n")
    assert lines[0] == "<image>Which?" and len(lines) == 4
    assert [line[0] for line in lines[1:3]] == ["A", "B"]
    assert lines[1].endswith("red") and lines[1].count("A") == 1


def test_options_that_happen_to_begin_with_a_letter_and_a_dot_keep_it():
    text = question_text(record("<image>Who?", "multiple choice", options=("A. Smith", "M. Jones")))
    assert "A. Smith" in text


def test_sft_rows_keep_their_messages_and_others_become_one_user_turn():
    messages = ({"role": "user", "content": "<image>Own words?"}, {"role": "assistant", "content": "Yes"})
    assert chat_messages(record("x", "OCR", messages=messages)) == list(messages)
    plain = record("<image>What?", "OCR")
    assert chat_messages(plain) == [{"role": "user", "content": question_text(plain)}]
