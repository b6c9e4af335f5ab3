"""Captions that are nothing but what is to be seen: a model that starts from nothing learns to see from them.

They have no chain of thought and no tags. Each says one thing of every actor of the scene, in words that the reasoning
of the tasks uses too: places and names; boxes, in a video at a second; when something is there; where it goes; what it
does.
"""

import random
from collections.abc import Callable

from onethinker_jax.data_pipeline.worlds.english import sentence, span_words
from onethinker_jax.data_pipeline.worlds.groundings import box_at, compact
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.stage import (
    MIN_VISIBLE,
    PLACES,
    Actor,
    Stage,
    deeds,
    place,
    whereabouts,
)

Caption = Callable[[Stage], Question]


def describe_actors(scene: Stage, inventory: str, rng: random.Random) -> Question:
    """One of the captions that an image, or a video, has; `inventory` is what the simplest of them says."""

    def listed(scene: Stage) -> Question:
        return Question("List the objects.", inventory, "")

    def boxes(scene: Stage) -> Question:
        return _list_boxes_at(scene, rng.choice(scene.whole_seconds))

    image: tuple[Caption, ...] = (listed, _list_boxes)
    video: tuple[Caption, ...] = (listed, _list_spans, _list_ways, _list_deeds, boxes, boxes)
    return rng.choice(video if scene.duration else image)(scene)


def _list_boxes(scene: Stage) -> Question:
    def box(actor: Actor) -> str:
        return f"{actor.definite} spans {compact(box_at(scene, scene.actors.index(actor), 0.0))}"

    return _each(scene, "Where is each object?", box)


def _list_boxes_at(scene: Stage, second: int) -> Question:
    def box(actor: Actor) -> str:
        index = scene.actors.index(actor)
        if scene.visible_share(index, second) < MIN_VISIBLE:
            return f"{actor.definite} is not seen"
        return f"{actor.definite} spans {compact(box_at(scene, index, second))}"

    return _each(scene, f"Where is each object at {second} seconds?", box)


def _list_spans(scene: Stage) -> Question:
    def span(actor: Actor) -> str:
        return f"{actor.definite} is seen {span_words(*actor.life)} seconds"

    return _each(scene, "When is each object visible?", span)


def _list_ways(scene: Stage) -> Question:
    def way(actor: Actor) -> str:
        begin, end = (whereabouts(scene, actor, time) for time in actor.life)
        return f"{actor.definite} begins {begin} and ends {end}"

    return _each(scene, "Where does each object begin and end?", way)


def _list_deeds(scene: Stage) -> Question:
    def deed(actor: Actor) -> str:
        return f"{actor.definite} {' '.join(deeds(scene, actor))}"

    return _each(scene, "What does each object do?", deed)


def _each(scene: Stage, problem: str, say: Callable[[Actor], str]) -> Question:
    """A sentence an actor, in the order of their coming, then row by row: which comes first must not be a guess."""

    def order(actor: Actor) -> tuple[float, int, str]:
        return actor.life[0], PLACES.index(place(scene, actor, actor.life[0])), actor.name

    said = (f"{sentence(say(actor))}." for actor in sorted(scene.actors, key=order))
    return Question(problem, " ".join(said), "")
