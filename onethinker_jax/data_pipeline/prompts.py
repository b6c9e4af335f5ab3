"""From a record to chat messages: the only prompt templates of the project.

One short instruction a task, in our own wording, put after the question (and after the options of a
multiple-choice question). Training, rollouts, evaluation and the demo all come through here, so that a
model is always asked in the words it was trained with. The placeholders <image> and <video> stay where the
record's problem has them; a problem that has none (evaluation files) gets them in front, videos first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onethinker_jax.data_pipeline.records import Record

ANSWER_FORMS = {
    "multiple choice": "one letter",
    "numerical": "a number",
    "regression": "an estimated number",
    "OCR": "the text",
    "math": "the result",
    "open-ended": "a short text",
    "temporal grounding": '{"time": [start, end]} in seconds',
    "spatial grounding": '{"boxes": [x1, y1, x2, y2]} from 0 to 1000',
    "spatial-temporal grounding": (
        '{"time": [start, end], "boxes": {"second": [x1, y1, x2, y2]}} from 0 to 1000'
    ),
    "tracking": '{"boxes": {"second": [x1, y1, x2, y2]}} from 0 to 1000',
    "segmentation": "a box, 3 positive_points and 3 negative_points from 0 to 1000",
    "segmentation (video)": "a time, its box, 3 positive_points and 3 negative_points from 0 to 1000",
}
"""What the answer of each problem type is; a key with the data type in brackets goes before the plain one."""

_LETTERED = re.compile(r"^\s*\(?[A-Z][.):]")


def instruction(problem_type: str, data_type: str) -> str:
    """The instruction of a task. Raises KeyError for an unknown problem type."""
    form = ANSWER_FORMS.get(f"{problem_type} ({data_type})") or ANSWER_FORMS[problem_type]
    return f"Think in <think></think>, then give {form} in <answer></answer>."


def ask(problem: str, options: tuple[str, ...], problem_type: str, data_type: str) -> str:
    """The question as the model reads it: problem, options (lettered if they are not yet), instruction."""
    lines = [problem.strip()]
    if options and problem_type == "multiple choice":
        lettered = all(_LETTERED.match(option) for option in options)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        lines += (
            options if lettered else [f"{a}. {option}" for a, option in zip(letters, options, strict=False)]
        )
    lines.append(instruction(problem_type, data_type))
    return "\n".join(lines)


def question_text(record: Record) -> str:
    """Placeholders, question, options and instruction of a record, as one string.

    Raises KeyError for an unknown problem type.
    """
    problem = record.problem
    if "<image>" not in problem and "<video>" not in problem:
        problem = "<video>" * len(record.videos) + "<image>" * len(record.images) + problem.lstrip()
    return ask(problem, record.options, record.problem_type, record.data_type)


def chat_messages(record: Record) -> list[dict[str, str]]:
    """Messages `[{"role", "content"}]`, content a string with <image> / <video>.

    A row of an SFT file keeps its own messages; any other record becomes one user turn.
    """
    if record.messages is not None:
        return [{"role": message["role"], "content": message["content"]} for message in record.messages]
    return [{"role": "user", "content": question_text(record)}]
