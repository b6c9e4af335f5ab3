"""The prompt of every task: short, in one wording, placeholders kept and in order; other wordings from files."""

import json
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.prompts import (
    OWN_PROMPTS,
    PromptError,
    Prompts,
    ask,
    chat_messages,
    instruction,
    question_text,
)
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.tasks import PROBLEM_TYPES, TASKS, Task


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
    text = instruction(task)
    assert "<think></think>" in text and "<answer></answer>" in text
    assert len(text.split()) <= 30


def test_every_task_has_its_own_wording():
    """Media share it; of segmentation, a video has another than an image."""
    wordings = {(task.problem_type, instruction(task)) for task in TASKS}
    assert len({text for _, text in wordings}) == len(wordings) == len(PROBLEM_TYPES) + 1


def test_unknown_problem_type_is_an_error():
    with pytest.raises(ValueError, match="unknown problem_type 'guessing'"):
        instruction(Task("guessing", "image"))
    with pytest.raises(PromptError, match=r"prompts: has no template for guessing \(image\)"):
        ask("?", (), Task("guessing", "image"))


def test_placeholder_stays_where_the_problem_has_it():
    text = question_text(record("What is in <image> here?", "OCR"))
    assert text == "What is in <image> here?\n" + instruction(Task("OCR", "image"))


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


CHOICE = "{question}\nOptions:\n{options}\nOne letter, please."
TOML = """
"multiple choice" = '''
{question}
Options:
{options}
One letter, please.'''
"segmentation (video)" = "{question} Give {\\"time\\": t, \\"boxes\\": {\\"1\\": []}} or {{t}}."
segmentation = "Mark {question}"
default = "{question} In \\\\frac{3}{2} words?"
"""


def test_prompts_from_a_file(tmp_path):
    (tmp_path / "prompts.toml").write_text(TOML)
    prompts = Prompts.from_file(tmp_path / "prompts.toml")
    chosen = record("<image>Which {options}?", "multiple choice", options=("red", "blue"))
    assert (
        question_text(chosen, prompts=prompts)
        == "<image>Which {options}?\nOptions:\nA. red\nB. blue\nOne letter, please."
    )
    video = record("A star", "segmentation", "video")
    expected = '<video>A star Give {"time": t, "boxes": {"1": []}} or {t}.'
    assert question_text(video, prompts=prompts) == expected
    assert question_text(record("<image>A star", "segmentation"), prompts=prompts) == "Mark <image>A star"
    text = "<image>What? In \\frac{3}{2} words?"
    assert chat_messages(record("<image>What?", "OCR"), prompts=prompts)[0]["content"] == text
    both = record("?", "OCR", "video-image", images=(Path("a.png"),), videos=(Path("a.mp4"),))
    assert question_text(both, prompts=prompts).startswith("<video><image>? In")


def test_prompts_are_written_and_read_back(tmp_path):
    for prompts in (OWN_PROMPTS, Prompts({"multiple choice": CHOICE, "default": "{question} Ж?"})):
        (tmp_path / "prompts.json").write_text(prompts.to_json(), encoding="utf-8")
        again = Prompts.from_file(tmp_path / "prompts.json")
        for task in TASKS:
            assert again.template(task) == prompts.template(task)


def test_a_system_turn_comes_before_the_question(tmp_path):
    table = {"system": "Think {first} {{x}}.", "multiple choice": CHOICE, "default": "{question}"}
    (tmp_path / "prompts.json").write_text(json.dumps(table))
    prompts = Prompts.from_file(tmp_path / "prompts.json")
    asked = record("<image>What?", "OCR")
    turns = [
        {"role": "system", "content": "Think {first} {{x}}."},
        {"role": "user", "content": "<image>What?"},
    ]
    assert (
        chat_messages(asked, prompts=prompts) == turns
    )  # a system turn has no placeholders: it is taken as it is
    messages = ({"role": "user", "content": "<image>Own?"}, {"role": "assistant", "content": "Yes"})
    assert chat_messages(record("x", "OCR", messages=messages), prompts=prompts) == list(messages)
    (tmp_path / "again.json").write_text(prompts.to_json())
    assert chat_messages(asked, prompts=Prompts.from_file(tmp_path / "again.json")) == turns
    assert chat_messages(asked)[0]["role"] == "user" and OWN_PROMPTS.system is None


def test_the_words_of_another_protocol(tmp_path):
    table = """
default = "{question} Plainly."
"multiple choice" = "{question}{options} Plainly."
[protocols.other]
system = "Be brief."
default = "{question}"
"multiple choice" = "{question}{options}"
"""
    (tmp_path / "prompts.toml").write_text(table)
    prompts = Prompts.from_file(tmp_path / "prompts.toml")
    (tmp_path / "again.json").write_text(prompts.to_json())
    asked = record("<image>What?", "OCR")
    for one in (prompts, Prompts.from_file(tmp_path / "again.json")):
        assert [turn["content"] for turn in chat_messages(asked, prompts=one)] == ["<image>What? Plainly."]
        other = one.of_protocol("other")
        assert [turn["content"] for turn in chat_messages(asked, prompts=other)] == [
            "Be brief.",
            "<image>What?",
        ]
        assert one.of_protocol("third") is one
    (tmp_path / "prompts.toml").write_text(table.replace('system = "Be brief."', 'default2 = "x"'))
    with pytest.raises(PromptError, match=r"prompts.toml: protocols.other: 'default2' is no task"):
        Prompts.from_file(tmp_path / "prompts.toml")


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        ({"system": ["x"]}, "system: must be a text, is a list"),
        ({"system": "See <image>"}, "system: holds <image>"),
        ({"system": "<|im_end|>"}, r"system: holds the reserved token <.im_end.>"),
        ({"protocols": {"other": "x"}}, "protocols: must hold templates by protocol"),
        ({"counting": "{question}"}, "'counting' is no task .known: multiple choice, numerical"),
        ({"OCR (audio)": "{question}"}, "'OCR .audio.' is no task"),
        ({"multiple choice": CHOICE}, "has no template for numerical .image., and no default"),
        (
            {"default": "{question}"},
            r"default \(for multiple choice \(image\)\): needs the placeholder \{options\} once",
        ),
        (
            {"OCR": "Read it."},
            r"OCR \(for OCR \(image\)\): needs the placeholder \{question\} once, has it 0",
        ),
        (
            {"OCR (video)": "{question}{question}"},
            r"OCR \(video\): needs the placeholder \{question\} once, has it 2",
        ),
        (
            {"math": "{Question}"},
            r"math .*: unknown placeholder \{Question\} \(known: \{question\}; write \{\{Quest",
        ),
        ({"math": "{question}{options}"}, r"math .*: unknown placeholder \{options\}"),
        ({"tracking": "<video>{question}"}, "tracking .*: holds <video>, which is in the place of"),
        ({"tracking": ["{question}"]}, "tracking .*: must be a text, is a list"),
    ],
)
def test_errors_of_prompts_name_file_task_and_placeholder(tmp_path, templates, message):
    path = tmp_path / "prompts.json"
    complete = (
        {}
        if len(templates) == 1 and ("default" in templates or CHOICE in templates.values())
        else {"multiple choice": CHOICE, "default": "{question}"}
    )
    path.write_text(json.dumps({**complete, **templates}))
    with pytest.raises(PromptError, match=message) as caught:
        Prompts.from_file(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_files_that_hold_no_prompts(tmp_path, content):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=r"prompts\.json: (cannot be read as prompts|must hold templates)"):
        Prompts.from_file(path)
