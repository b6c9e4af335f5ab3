"""The table of all tasks of the Photos world; the builders and their shares stand in a file a family."""

import random
from dataclasses import replace

from onethinker_jax.data_pipeline.photos.questions.amounts import AMOUNTS
from onethinker_jax.data_pipeline.photos.questions.captions import CAPTIONS
from onethinker_jax.data_pipeline.photos.questions.choices import CHOICES
from onethinker_jax.data_pipeline.photos.questions.groundings import GROUNDINGS
from onethinker_jax.data_pipeline.photos.questions.phrases import INVENTORIED, inventory
from onethinker_jax.data_pipeline.photos.questions.readings import READINGS
from onethinker_jax.data_pipeline.photos.questions.sums import SUMS
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.question import Question, ask, table_of_tasks
from onethinker_jax.tasks import Task

QUESTIONS = table_of_tasks("photos/questions", CHOICES, AMOUNTS, READINGS, SUMS, CAPTIONS, GROUNDINGS)
"""Every question is about a scene; most reasoning begins with what is where."""


def ask_task(scene: PhotoScene, problem_type: str, rng: random.Random) -> Question | None:
    """A question of `problem_type` on `scene`, or None if the scene offers none."""
    question = ask(QUESTIONS[Task.of(problem_type, scene.data_type)][scene.kind], scene, rng)
    if question is None or scene.kind not in INVENTORIED:
        return question
    return replace(question, thinking=f"{inventory(scene)} {question.thinking}".strip())
