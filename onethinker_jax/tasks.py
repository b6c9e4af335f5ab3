"""THE table of tasks: what every problem type is, for each medium it takes.

All code that asks something of a task asks it here, so that a new one is a row of `TABLE` and what a row cannot hold.

What needs code of a room (accuracies, the drawing of a new kind of annotation, the questions of the Shapes world)
stands in that room in a dict keyed by problem type, answer kind or `Task`, which `complete` checks against the
table when the room is imported: a forgotten entry is an import error, never a silent fall-through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from onethinker_jax.answer_forms import BOX, BOXES, SECOND, SPAN, Form, points

Medium = Literal["image", "video", "text"]
AnswerKind = Literal["letter", "number", "estimate", "result", "text", "JSON"]
"""How an answer is written and read: the letter of an option, a number, a number that may be near, the result of
mathematics, a text, or a JSON object of the problem type's `parts`."""
Service = Literal["text", "mask"]

MESSAGES = "messages"
"""Stands for the problem type of an SFT row that names none: such a task is in no table and is never scored."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, order=True)
class Task:
    """A problem type asked about a medium. Its text form stands in metrics' names, tables and files."""

    problem_type: str
    medium: Medium

    @classmethod
    def of(cls, problem_type: str, data_type: str) -> Task:
        """The task of a record; what has a video and an image ("video-image") counts as video."""
        return cls(problem_type or MESSAGES, medium_of(data_type))

    def __str__(self) -> str:
        return f"{self.problem_type} ({self.medium})"

    @property
    def wording(self) -> Wording:
        """How its answer is asked for."""
        return TABLE[self.problem_type].wordings[self.medium]

    @property
    def moments(self) -> str:
        """The name of the moments that its rewards move, one of `MOMENTS`."""
        return str(self) if TABLE[self.problem_type].moments_by_medium else self.problem_type


@dataclass(frozen=True)
class Part:
    """One key of a JSON answer."""

    key: str
    form: Form
    field: str
    """The field of `StructuredAnswer` that it fills."""
    video_only: bool = False


@dataclass(frozen=True)
class Wording:
    """How an answer is asked for: `prompt` of the student, `teacher` of the teacher, with an example."""

    prompt: str
    teacher: str


@dataclass(frozen=True)
class Threshold:
    """The least accuracy that an annotation is kept with, as a share of the most, and what it amounts to."""

    accuracy: float
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ProblemType:
    """One row of the table."""

    answer: AnswerKind
    media: tuple[Medium, ...]
    wording: Wording
    video_wording: Wording | None = None
    """Where a video is asked about in other words."""
    threshold: Threshold
    parts: tuple[Part, ...] = ()
    """The parts of a JSON answer, in the order in which they are checked."""
    keys_within_time: bool = False
    """Whether a truth's boxes must be of seconds within its time."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """`RewardSettings` fields with how often each counts: their sum is the paper's largest accuracy; none: 1."""
    video_weights: Mapping[str, float] = field(default_factory=dict)
    """More of them for a video."""
    judged_by: Service | None = None
    """The part of the reward service that can give its accuracy."""
    moments_by_medium: bool = False
    """Whether each medium has moments of its own in EMA-GRPO."""
    published: bool = True
    """Whether OneThinker's published code scores it; what it does not know has accuracy 0 there."""

    @property
    def wordings(self) -> dict[Medium, Wording]:
        """The wording for each medium."""
        return {
            medium: (medium == "video" and self.video_wording) or self.wording for medium in get_args(Medium)
        }

    def parts_of(self, data_type: str) -> tuple[Part, ...]:
        """The parts that an answer about such media has."""
        return tuple(part for part in self.parts if is_video(data_type) or not part.video_only)

    def weights_of(self, data_type: str) -> dict[str, float]:
        """The weights that such media have."""
        return {**self.weights, **(self.video_weights if is_video(data_type) else {})}


_ALL: tuple[Medium, ...] = ("image", "video", "text")
_POINTS = (
    Part("positive_points", points(3, 3), "positive_points"),
    Part("negative_points", points(3, 3), "negative_points"),
)
_MARKS_EXAMPLE = (
    '"boxes": [120, 80, 560, 910], "positive_points": [[300, 200], [340, 480], [310, 700]], '
    '"negative_points": [[60, 40], [700, 300], [480, 960]]'
)


_ROWS: dict[str, ProblemType] = {
    "multiple choice": ProblemType(
        answer="letter",
        media=_ALL,
        wording=Wording("one letter", "the letter of the right option"),
        threshold=Threshold(1.0, "the right letter"),
    ),
    "numerical": ProblemType(
        answer="number",
        media=_ALL,
        wording=Wording("a number", "one number"),
        threshold=Threshold(1.0, "the right number"),
    ),
    "regression": ProblemType(
        answer="estimate",
        media=_ALL,
        wording=Wording("an estimated number", "one number, your best estimate"),
        threshold=Threshold(0.8, "a relative error below 15%"),
    ),
    "OCR": ProblemType(
        answer="text",
        media=("image", "video"),  # reads what is in a picture
        wording=Wording("the text", "the text as it is written"),
        threshold=Threshold(0.9, "at most one word in ten wrong"),
    ),
    "math": ProblemType(
        answer="result",
        media=_ALL,
        wording=Wording("the result", "the result"),
        threshold=Threshold(1.0, "the right result"),
    ),
    "open-ended": ProblemType(
        answer="text",
        media=_ALL,
        wording=Wording("a short text", "a short text in whole sentences"),
        threshold=Threshold(0.35, "mean ROUGE F with the reference; another judge needs another one"),
        judged_by="text",
    ),
    "temporal grounding": ProblemType(
        answer="JSON",
        media=("video",),
        wording=Wording(
            '{"time": [start, end]} in seconds',
            'JSON with start and end in seconds, such as {"time": [3.5, 9.0]}',
        ),
        threshold=Threshold(0.6, "tIoU"),
        parts=(Part("time", SPAN, "span"),),
    ),
    "spatial grounding": ProblemType(
        answer="JSON",
        media=("image",),
        wording=Wording(
            '{"boxes": [x1, y1, x2, y2]} from 0 to 1000',
            'JSON with one box as [x1, y1, x2, y2], such as {"boxes": [120, 80, 560, 910]}',
        ),
        threshold=Threshold(0.7, "sIoU; benchmarks count a box as found from 0.5 on"),
        parts=(Part("boxes", BOX, "box"),),
    ),
    "spatial-temporal grounding": ProblemType(
        answer="JSON",
        media=("video",),
        wording=Wording(
            '{"time": [start, end], "boxes": {"second": [x1, y1, x2, y2]}} from 0 to 1000',
            "JSON with start and end in seconds and one box for every whole second between them, such as "
            '{"time": [8.6, 10.2], "boxes": {"9": [120, 80, 560, 910], "10": [130, 80, 570, 910]}}',
        ),
        threshold=Threshold(0.5, "mean of tIoU and of sIoU over the true seconds"),
        parts=(Part("time", SPAN, "span"), Part("boxes", BOXES, "boxes")),
        keys_within_time=True,
        weights={"time_weight": 1, "box_weight": 1},
    ),
    "tracking": ProblemType(
        answer="JSON",
        media=("video",),
        wording=Wording(
            '{"boxes": {"second": [x1, y1, x2, y2]}} from 0 to 1000',
            "JSON with one box for every whole second asked for, such as "
            '{"boxes": {"1": [120, 80, 560, 910], "2": [130, 80, 570, 910]}}',
        ),
        threshold=Threshold(0.6, "mean sIoU over the true seconds"),
        parts=(Part("boxes", BOXES, "boxes"),),
    ),
    "segmentation": ProblemType(
        answer="JSON",
        media=("image", "video"),
        wording=Wording(
            "a box, 3 positive_points and 3 negative_points from 0 to 1000",
            f"JSON with the object's box, three points on it and three beside it, such as {{{_MARKS_EXAMPLE}}}",
        ),
        video_wording=Wording(
            "a time, its box, 3 positive_points and 3 negative_points from 0 to 1000",
            "JSON with the second in which the object is seen best and, in the frame of that second, its box, "
            f'three points on it and three beside it, such as {{"time": 4.0, {_MARKS_EXAMPLE}}}',
        ),
        threshold=Threshold(0.7, "mean of sIoU and the closeness of points (and of a video's key time)"),
        parts=(Part("boxes", BOX, "box"), *_POINTS, Part("time", SECOND, "key_time", video_only=True)),
        weights={"box_weight": 1, "point_weight": 2},
        video_weights={"key_time_weight": 1},
        judged_by="mask",
        moments_by_medium=True,
    ),
}


class _Table(dict[str, ProblemType]):
    def __missing__(self, name: str) -> ProblemType:
        raise ValueError(f"unknown problem_type {name!r}: one of {', '.join(self)}")


TABLE = _Table(_ROWS)
"""The rows by problem type. Asking for one that is not there raises ValueError."""

PROBLEM_TYPES: tuple[str, ...] = tuple(TABLE)
TASKS: tuple[Task, ...] = tuple(Task(name, medium) for name, row in TABLE.items() for medium in row.media)
BY_NAME: dict[str, Task] = {str(task): task for task in TASKS}
"""The tasks by their text form, for what is read from flags and files."""
MOMENTS: tuple[str, ...] = tuple(dict.fromkeys(task.moments for task in TASKS))
"""Names of the reward moments, in the order of a checkpoint's arrays: a new problem type stands last."""


def table_in_markdown() -> str:
    """The table as docs/data.md shows it."""
    lines = [
        "| problem type | media | answer | least accuracy of an annotation | which is |",
        "|---|---|---|---|---|",
    ]
    for name, row in TABLE.items():
        forms = dict.fromkeys(task.wording.prompt for task in TASKS if task.problem_type == name)
        least = row.threshold
        cells = (name, ", ".join(row.media), "; video: ".join(forms), f"{least.accuracy:g}", least.meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def of_answer(*kinds: AnswerKind) -> tuple[str, ...]:
    """The problem types whose answers are of these kinds."""
    return tuple(name for name, row in TABLE.items() if row.answer in kinds)


def is_structured(problem_type: str) -> bool:
    """Whether its answer is JSON: boxes, points, times. False for `MESSAGES`, and for no type at all."""
    return problem_type in TABLE and TABLE[problem_type].answer == "JSON"


def is_video(data_type: str) -> bool:
    """Whether a `data_type` ("image", "video", "video-image", "text") has a time axis."""
    return data_type.startswith("video")


def medium_of(data_type: str) -> Medium:
    """The medium of a `data_type`; anything but "image" and "text" counts as video."""
    return "image" if data_type == "image" else "text" if data_type == "text" else "video"


def complete(where: str, entries: Mapping[Key, Value], wanted: Iterable[Key]) -> Mapping[Key, Value]:
    """`entries`, which must be there for every one of `wanted` and nothing else.

    Raises LookupError: an entry is missing, or one is of no task; it says where.
    """
    keys: Collection[Key] = tuple(wanted)
    if missing := [str(key) for key in keys if key not in entries]:
        raise LookupError(f"{where} has no entry for {', '.join(missing)}")
    if unknown := [str(key) for key in entries if key not in keys]:
        raise LookupError(f"{where} has an entry for {', '.join(unknown)}, which tasks.py does not know")
    return entries
