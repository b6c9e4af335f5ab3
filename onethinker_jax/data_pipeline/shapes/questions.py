"""Questions of the Shapes world: the table of all tasks; the builders and their shares stand in a file a family."""

import random
from dataclasses import replace

from onethinker_jax.data_pipeline.shapes.amounts import AMOUNTS
from onethinker_jax.data_pipeline.shapes.captions import CAPTIONS
from onethinker_jax.data_pipeline.shapes.choices import CHOICES
from onethinker_jax.data_pipeline.shapes.groundings import GROUNDINGS
from onethinker_jax.data_pipeline.shapes.phrases import inventory
from onethinker_jax.data_pipeline.shapes.readings import READINGS
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.shapes.sums import SUMS
from onethinker_jax.data_pipeline.worlds.question import Question, ask, table_of_tasks
from onethinker_jax.tasks import Task

QUESTIONS = table_of_tasks("shapes/questions.py", CHOICES, AMOUNTS, READINGS, SUMS, CAPTIONS, GROUNDINGS)
"""Every question is about a scene; reasoning about shapes begins with what is where."""


def ask_task(scene: Scene, problem_type: str, rng: random.Random) -> Question | None:
    """A question of `problem_type` on `scene`, or None if the scene offers none."""
    question = ask(QUESTIONS[Task.of(problem_type, scene.data_type)][scene.kind], scene, rng)
    if question is None or not scene.shapes:
        return question
    return replace(question, thinking=f"{inventory(scene)} {question.thinking}".strip())
