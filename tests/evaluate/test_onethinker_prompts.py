"""OneThinker's wording read out of files of the same structure, in other words, which do harm when they are run."""

import re
from pathlib import Path

import pytest

from onethinker_jax.data_pipeline.processor.prompts import Prompts, chat_messages
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.evaluate.onethinker_prompts import CHOICES, CONFIG, SCRIPT, main
from onethinker_jax.tasks import TASKS

QUESTION = '''"{Question}\\n"
    "Look {{well}}. "  # a comment
    "Answer {{\\"so\\"}}.\\n"'''
TAILS = {
    "multiple choice": "One letter.",
    "numerical": "A number.",
    "temporal grounding": 'Such as {\\"time\\": [1, 2]}, {from} to {to}.',
    "segmentation_image": "Mark the picture.",
    "segmentation_video": "Mark one frame.",
}
SYSTEM = "First think.\\nThen answer.\\n\\n"


def repository(
    folder: Path, *, question: str = QUESTION, tails: dict[str, str] = TAILS, entries: str = ""
) -> Path:
    """A copy of the parts that are read; each file fails if it is imported."""
    table = "\n".join(f'    "{key}": (\n        "{text}"\n    ),' for key, text in tails.items())
    texts = {
        SCRIPT: f"""import nothing_like_this
raise SystemExit("executed")
DEFAULT = 64
QUESTION_TEMPLATE = (
    {question}
)
TYPE_TEMPLATE = {{
{table}
}}
def main():
    def build_prompt_text(example): ...
""",
        CONFIG: entries
        or """from nothing_like_this import partial
raise SystemExit("executed")
series = {
    "Other-8B": partial(Chat, model_path="a", system_prompt="Another."),
    "Some-8B-OneThinker": partial(Chat, model_path="a/OneThinker", use=False, system_prompt=("First think.\\n"
        "Then answer.\\n\\n"), post=True),
    "OneThinker-old": partial(Chat, model_path="b"),
}
""",
        CHOICES: """raise SystemExit("executed")
class Base:
    def build_prompt(self, line):
        return []
class Choices(Base):
    def build_prompt(self, line):
        prompt = ''
        if line.hint is not None:
            prompt += f'Hint: {hint}\\n'
        prompt += f'Q: {question}\\n'
        if options:
            prompt += options_prompt
            prompt += 'Which {one}? \\n'
        return prompt
""",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def record(problem_type: str, medium: str = "image", options: tuple[str, ...] = ()) -> Record:
    return Record(
        problem="What {is} it?",
        problem_type=problem_type,
        data_type=medium,
        problem_id=1,
        options=options,
        answer="",
        images=(Path("a.png"),) if medium == "image" else (),
        videos=(Path("a.mp4"),) if medium == "video" else (),
        data_source="",
    )


@pytest.mark.parametrize("name", ["prompts.toml", "prompts.json"])
def test_both_harnesses_words(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / name
    assert main([str(repository(tmp_path / "OneThinker")), "--out", str(out)]) == 0
    assert f"{out}: the words of 5 problem types and of protocol vlmevalkit" in capsys.readouterr().out
    prompts = Prompts.from_file(out)

    def asked(*of: object) -> list[str]:
        return [turn["content"] for turn in chat_messages(record(*of), prompts=prompts)]  # type: ignore[arg-type]

    look = 'Look {well}. Answer {"so"}.\n'
    assert asked("multiple choice", "image", ("A. red", "B. {Question}")) == [
        f"<image>What {{is}} it?\nOptions:\nA. red\nB. {{Question}}\n{look}One letter."
    ]
    assert asked("temporal grounding", "video") == [
        f'<video>What {{is}} it?\n{look}Such as {{"time": [1, 2]}}, {{from}} to {{to}}.'
    ]
    assert asked("segmentation") == [f"<image>What {{is}} it?\n{look}Mark the picture."]
    assert asked("segmentation", "video") == [f"<video>What {{is}} it?\n{look}Mark one frame."]
    assert asked("math") == [f"<image>What {{is}} it?\n{look}"]  # no words of its own, as in their script
    kit = prompts.of_protocol("vlmevalkit")
    choice = record("multiple choice", options=("red", "blue"))
    assert [turn["content"] for turn in chat_messages(choice, prompts=kit)] == [
        "First think.\nThen answer.\n\n",
        "Q: <image>What {is} it?\nOptions:\nA. red\nB. blue\nWhich {one}? \n",
    ]
    assert [turn["content"] for turn in chat_messages(record("math"), prompts=kit)][
        1
    ] == "<image>What {is} it?"
    assert all(prompts.template(task) for task in TASKS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": '"Ask. " + QUESTION'}, rf"{SCRIPT}: has no text QUESTION_TEMPLATE"),
        ({"question": '"{Question} {Question}"'}, r"QUESTION_TEMPLATE needs \{Question\} once"),
        ({"question": "("}, rf"{SCRIPT}: is no Python file"),
        ({"tails": {"counting": "x"}}, r"TYPE_TEMPLATE: 'counting' is no problem type known here"),
        ({"tails": {"math": "x"}}, r"TYPE_TEMPLATE has no 'multiple choice'"),
        ({"tails": {**TAILS, "OCR": "<|im_end|>"}}, r"holds the reserved token"),
        ({"entries": "a = {}"}, rf"{CONFIG}: has 0 models named OneThinker with a system_prompt"),
        ({"entries": "a = {'OneThinker': f(system_prompt=prompt())}"}, r"has 0 models named OneThinker"),
    ],
)
def test_another_structure_is_one_line(
    tmp_path: Path, changes: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(repository(tmp_path, **changes)), "--out", str(tmp_path / "p.toml")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}"), line
    assert re.search(message, line), line
    assert not (tmp_path / "p.toml").exists()


def test_a_folder_that_is_no_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert f"{tmp_path / SCRIPT}: cannot be read (No such file or directory)" in capsys.readouterr().err
