"""Which answers name what is shown, of hand-made questions."""

import json
from pathlib import Path

import pytest
from PIL import Image

from experiments.naming import Arguments, Naming, bare_name, measure, names, naming, read_answers, run
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.errors import UserError


def row(number: int, problem: str, answer: str, options: tuple[str, ...] = (), split: str = "seen") -> dict:
    kind = "multiple choice" if options else "open-ended"
    return {
        "problem_id": number,
        "problem": f"<image>{problem}",
        "data_type": "image",
        "problem_type": kind,
        "options": list(options),
        "data_source": f"photos_{split}",
        "solution": f"<answer>{answer}</answer>",
        "path": "images/a.jpg",
    }


ROWS = [
    row(1, "Which of these is in the picture?", "B", ("A. owl", "B. rubber duck", "C. mug", "D. car")),
    row(2, "What does the photograph show?", "It shows a lemur."),
    row(3, "What does the photograph show?", "It shows Taj Mahal."),
    row(4, "Which pasted object is at the upper left?", "A tomato.", split="unseen"),
    row(5, "Which pasted object is in the centre?", "It is a violin.", split="unseen"),
    row(6, "How many owls are there?", "2"),
]
ANSWERS: dict[int | str, str] = {
    1: "<think>I see an owl and a rubber duck.</think><answer>A</answer>",  # right; one wrong option of three
    2: "<answer>It shows a lemur.</answer>",  # right, and not the Taj Mahal
    3: "<answer>It shows a lemurs' den.</answer>",  # neither: "lemur" is no word of it
    4: "<answer>It is a violin.</answer>",  # the other record's
    5: "<answer>It is a violin.</answer>",
    6: "2",
}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(ROWS))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images/a.jpg")
    return path


def test_questions_of_naming_and_their_wrong_things(records: Path) -> None:
    found = [naming(record) for record in RecordFile(records)]
    assert found[5] is None
    assert found[0] and (found[0].truth, found[0].wrong) == ("rubber duck", ("owl", "mug", "car"))
    assert [question and question.truth for question in found[1:5]] == [
        "lemur",
        "taj mahal",
        "tomato",
        "violin",
    ]


def test_shares_of_right_and_wrong_names_by_split(records: Path) -> None:
    questions: dict[int | str, Naming] = {
        r.problem_id: q for r in RecordFile(records) if (q := naming(r)) is not None
    }
    seen, unseen = measure(ANSWERS, questions)
    assert (seen["split"], seen["questions"]) == ("photos_seen", 3)
    assert seen["right"] == pytest.approx(66.7) and seen["wrong"] == pytest.approx(11.1)
    assert seen["difference"] == pytest.approx(55.6, abs=0.05)
    assert (unseen["right"], unseen["wrong"], unseen["difference"]) == (50.0, 50.0, 0.0)


@pytest.mark.parametrize(
    ("text", "name"),
    [("It is a rubber duck.", "rubber duck"), ("An onion.", "onion"), ("It shows Jupiter.", "jupiter")],
)
def test_bare_names(text: str, name: str) -> None:
    assert bare_name(text) == name and names(f"There is {text}", name)


def test_what_is_missing_is_named(records: Path, tmp_path: Path) -> None:
    answers = tmp_path / "sft.jsonl"
    answers.write_text('{"problem_id": 1, "response": "an owl"}\n{"problem_id": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_answers(answers)
    answers.write_text('{"problem_id": 1, "response": "an owl"}\n')
    with pytest.raises(UserError, match="no answer to record 2"):
        run(Arguments(answers, records))
