"""Multiple-choice questions that every world asks."""

import random

from onethinker_jax.data_pipeline.worlds.question import Question, choice
from onethinker_jax.data_pipeline.worlds.stage import PLACES, Stage, clear_place, place, whereabouts


def choose_place(scene: Stage, rng: random.Random) -> Question | None:
    """In which ninth something is; None where all are near a line between the ninths."""
    clear = [actor for actor in scene.actors if clear_place(scene, actor)]
    if not clear:
        return None
    actor = rng.choice(clear)
    seen = f"I look for {actor.definite}. It is {whereabouts(scene, actor)}."
    return choice(rng, f"Where is {actor.definite}?", place(scene, actor, 0.0), PLACES, seen)
