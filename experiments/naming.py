"""How often a model's answers name what a held-out picture shows, beside how often they name something else.

    python -m experiments.naming RUN/heldout/sft.jsonl --records RUN/data/eval_photos.json

RUN is a run on the Photos world. Read are the answers to the questions that ask what a photograph, a map or a part of
a picture shows. An answer, its reasoning included, names a thing if it has the words of its name. What chance does is
the share of answers that name a wrong thing: of a multiple choice, its wrong options; else, what the other records of
the same question and split show. One JSON line a split, `photos_seen` and `photos_unseen`.
"""

from onethinker_jax import command_line

if __name__ == "__main__":
    command_line.begin()

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from experiments.result_lines import read_lines
from experiments.words import say
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.data_pipeline.records.record_file import RecordFile
from onethinker_jax.errors import UserError

PROG = "python -m experiments.naming"
CHOICES = ("Which of these is in the ", "What does this photograph show?", "What does this map show?")
OPEN = ("What does the photograph show?", "Which pasted object is ")
ARTICLE = re.compile(r"^(it is|it shows)?\s*(a|an|the|some)?\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Arguments:
    """The share of held-out answers that name what is shown, and what chance would do."""

    answers: tyro.conf.Positional[Path]
    """Held-out answers of a run, JSON lines."""
    records: Path
    """The records that they answer."""


@dataclass(frozen=True)
class Naming:
    """A question of what something is."""

    split: str  # the record's data_source
    kind: str  # the question's beginning
    truth: str
    wrong: tuple[str, ...]  # wrong options; none of an open-ended one


def naming(record: Record) -> Naming | None:
    """The question as one of naming; None where it asks anything else."""
    problem = record.problem.replace("<image>", "").replace("<video>", "")
    kind = next((kind for kind in (*CHOICES, *OPEN) if problem.startswith(kind)), None)
    if kind is None:
        return None
    solution = record.answer.removeprefix("<answer>").removesuffix("</answer>").strip()
    if kind in OPEN:
        return Naming(record.data_source, kind, bare_name(solution), ())
    options = {option[0]: bare_name(option[2:]) for option in record.options}
    wrong = tuple(name for letter, name in options.items() if letter != solution)
    return Naming(record.data_source, kind, options[solution], wrong)


def bare_name(text: str) -> str:
    """A thing's name without an article, full stop or capitals: "It is a rubber duck." -> "rubber duck"."""
    return ARTICLE.sub("", text.strip()).strip(" .").lower()


def names(answer: str, name: str) -> bool:
    """Whether the answer has the words of the name, one after the other."""
    return re.search(rf"\b{re.escape(name)}\b", answer.lower()) is not None


def measure(
    answers: Mapping[int | str, str], questions: Mapping[int | str, Naming]
) -> list[dict[str, object]]:
    """A line a split: how many questions, and what their answers name, in percent.

    `right` is the share that name the truth, `wrong` the same of wrong things, `interval` the 95% interval of the
    difference (normal, over records).
    """
    lines: list[dict[str, object]] = []
    for split in sorted({question.split for question in questions.values()}):
        here = {number: q for number, q in questions.items() if q.split == split}
        right, wrong = [], []
        for number, question in here.items():
            others = question.wrong or tuple(
                {q.truth for q in here.values() if q.kind == question.kind} - {question.truth}
            )
            if others:
                right.append(names(answers[number], question.truth))
                wrong.append(np.mean([names(answers[number], name) for name in others]))
        gaps = 100 * (np.array(right, float) - np.array(wrong))
        lines.append(
            {
                "split": split,
                "questions": len(gaps),
                "right": round(100 * float(np.mean(right)), 1),
                "wrong": round(100 * float(np.mean(wrong)), 1),
                "difference": round(float(gaps.mean()), 1),
                "interval": round(float(1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5), 1),
            }
        )
    return lines


def read_answers(path: Path) -> dict[int | str, str]:
    """Responses by problem_id. Raises UserError naming a line that is none."""
    found: dict[int | str, str] = {}
    for number, row in enumerate(read_lines(path), 1):
        try:
            found[row["problem_id"]] = row["response"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: no held-out answer: {error!r}") from error
    return found


def run(arguments: Arguments) -> None:
    """A line a split."""
    answers = read_answers(arguments.answers)
    questions: dict[int | str, Naming] = {}
    for record in RecordFile(arguments.records):
        question = naming(record)
        if question is not None:
            questions[record.problem_id] = question
    missing = [number for number in questions if number not in answers]
    if missing or not questions:
        what = f"no answer to record {missing[0]}" if missing else "no question of naming"
        raise UserError(f"{arguments.answers}: {what} of {arguments.records}")
    for line in measure(answers, questions):
        say(json.dumps(line))


if __name__ == "__main__":
    sys.exit(command_line.main(Arguments, run, sys.argv[1:], prog=PROG))
