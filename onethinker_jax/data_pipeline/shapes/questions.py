"""Questions of the Shapes world: each with its true answer and a short chain of thought, for every task.

Each builder takes a scene and a random generator and returns a `Question`, or None where the scene cannot
carry one (then another kind of question, or another scene, is taken). Answers are computed from the scene,
never from a drawn label; what could be misread (two nearly equal sizes, a centre on a border line) is not
asked. This file puts the table of all tasks together; the builders and their shares stand in a file a family.
"""

import random
from collections.abc import Mapping
from dataclasses import replace

from onethinker_jax.data_pipeline.shapes.amounts import AMOUNTS
from onethinker_jax.data_pipeline.shapes.captions import CAPTIONS
from onethinker_jax.data_pipeline.shapes.choices import CHOICES
from onethinker_jax.data_pipeline.shapes.groundings import GROUNDINGS
from onethinker_jax.data_pipeline.shapes.phrases import Asked, Question, inventory
from onethinker_jax.data_pipeline.shapes.readings import READINGS
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.shapes.sums import SUMS
from onethinker_jax.tasks import TASKS, Task, complete


def ask_task(scene: Scene, problem_type: str, rng: random.Random) -> Question | None:
    """A question of `problem_type` on `scene`, or None if the scene offers none."""
    builders = list(QUESTIONS[Task.of(problem_type, scene.data_type)][scene.kind].builders)
    while builders:
        weights = [weight for weight, _ in builders]
        pick = rng.choices(range(len(builders)), weights)[0]
        question = builders.pop(pick)[1](scene, rng)
        if question is not None:
            if scene.shapes:
                question = replace(question, thinking=f"{inventory(scene)} {question.thinking}".strip())
            return question
    return None


QUESTIONS: Mapping[Task, Mapping[str, Asked]] = complete(
    "shapes/questions.py",
    {
        Task(problem_type, medium): kinds
        for table in (CHOICES, AMOUNTS, READINGS, SUMS, CAPTIONS, GROUNDINGS)
        for problem_type, media in table.items()
        for medium, kinds in media.items()
    },
    (task for task in TASKS if task.medium != "text"),  # every question is about a scene
)
"""Task -> kind of scene -> the share of the records that it has, and who makes its questions."""
