"""A question on a scene with its true answer, and the table of all tasks by which a world asks.

Each builder takes a scene and a random generator and returns a `Question`, or None where the scene cannot
carry one (then another kind of question, or another scene, is taken). Answers are computed from the scene,
never from a drawn label; what could be misread (two nearly equal sizes, a centre on a border line) is not asked.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onethinker_jax.tasks import TASKS, Medium, Task, complete

LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """`problem` without placeholder; `answer` without tags; `target`: the actor whose masks are recorded."""

    problem: str
    answer: str
    thinking: str
    options: tuple[str, ...] = ()
    target: int | None = None


Builder = Callable[[Any, random.Random], Question | None]
"""Makes a question on a scene of its world; None where the scene cannot carry one."""


@dataclass(frozen=True)
class Asked:
    """How a task is asked on one kind of scene: its share of all records, in percent, and weights of builders."""

    share: float
    builders: tuple[tuple[float, Builder], ...]


QuestionTable = Mapping[str, Mapping[Medium, Mapping[str, Asked]]]
"""Problem type -> medium -> kind of scene -> how it is asked."""

TaskTable = Mapping[Task, Mapping[str, Asked]]
"""Task -> kind of scene -> the share of the records that it has, and who makes its questions."""


def table_of_tasks(where: str, *tables: QuestionTable) -> TaskTable:
    """All tables as one. A problem type may stand in several, each with kinds of scenes of its own.

    Raises LookupError naming `where`: a task about media is in none of them, or one is unknown.
    """
    merged: dict[Task, dict[str, Asked]] = {}
    for table in tables:
        for problem_type, media in table.items():
            for medium, kinds in media.items():
                merged.setdefault(Task(problem_type, medium), {}).update(kinds)
    return complete(where, merged, (task for task in TASKS if task.medium != "text"))


def ask(asked: Asked, scene: Any, rng: random.Random) -> Question | None:
    """A question by one of the builders, drawn by their weights; None if the scene offers none."""
    builders = list(asked.builders)
    while builders:
        weights = [weight for weight, _ in builders]
        pick = rng.choices(range(len(builders)), weights)[0]
        question = builders.pop(pick)[1](scene, rng)
        if question is not None:
            return question
    return None


def choice(
    rng: random.Random, stem: str, right: str, wrong: Iterable[str], thinking: str, count: int = 4
) -> Question:
    """A multiple-choice question with `count` lettered options in random order.

    Its thinking ends by reading the options one by one, until `right` is found.
    """
    others = [option for option in dict.fromkeys(wrong) if option != right]
    options = [right, *rng.sample(others, min(count - 1, len(others)))]
    rng.shuffle(options)
    place = options.index(right)
    pairs = list(zip(LETTERS, options, strict=False))
    lettered = tuple(f"{letter}. {option}" for letter, option in pairs)
    read = ", ".join(f"{letter} {option}" for letter, option in pairs[: place + 1])
    return Question(stem, LETTERS[place], f"{thinking} I look for {right}: {read}.", lettered)
