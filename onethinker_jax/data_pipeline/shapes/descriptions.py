"""Captions of the Shapes world that are nothing but what is to be seen: a model that starts from nothing learns to see.

They have no chain of thought and no tags. Each says one thing of everything in the scene, in words that the reasoning
of the tasks uses too: place, size, colour and shape; boxes; when something is there; where it goes; letters and digits.
"""

import json
import random
from collections.abc import Callable

from onethinker_jax.data_pipeline.shapes.phrases import inventory
from onethinker_jax.data_pipeline.shapes.scene import Scene, Shape
from onethinker_jax.data_pipeline.worlds.english import seconds_text, sentence, spell
from onethinker_jax.data_pipeline.worlds.masks import mask_box
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.stage import PLACES, deeds, place, whereabouts


def describe(scene: Scene, rng: random.Random) -> Question:
    """One of the captions that the scene's kind and medium have."""
    if scene.prints:
        return _read_turns(scene) if scene.duration else _read(scene)
    captions = (_list, _list_spans, _list_ways, _list_deeds) if scene.duration else (_list, _list_boxes)
    return rng.choice(captions)(scene)


def _list(scene: Scene) -> Question:
    return Question("List the objects.", inventory(scene), "")


def _list_boxes(scene: Scene) -> Question:
    def box(shape: Shape) -> str:
        mask = scene.visible_mask(scene.shapes.index(shape), 0.0)
        return json.dumps(mask_box(mask), separators=(",", ":"))

    return _each(scene, "Where is each object?", lambda shape: f"the {shape.name} spans {box(shape)}")


def _list_spans(scene: Scene) -> Question:
    def span(shape: Shape) -> str:
        start, end = (seconds_text(time) for time in shape.life)
        return f"the {shape.name} is seen from {start} to {end} seconds"

    return _each(scene, "When is each object visible?", span)


def _list_ways(scene: Scene) -> Question:
    def way(shape: Shape) -> str:
        begin, end = (whereabouts(scene, shape, time) for time in shape.life)
        return f"the {shape.name} begins {begin} and ends {end}"

    return _each(scene, "Where does each object begin and end?", way)


def _list_deeds(scene: Scene) -> Question:
    return _each(
        scene, "What does each object do?", lambda shape: f"the {shape.name} {' '.join(deeds(scene, shape))}"
    )


def _each(scene: Scene, problem: str, say: Callable[[Shape], str]) -> Question:
    """A sentence a shape, in the order of their coming, then row by row: which comes first must not be a guess."""

    def order(shape: Shape) -> tuple[float, int, str]:
        return shape.life[0], PLACES.index(place(scene, shape, shape.life[0])), shape.name

    said = (f"{sentence(say(shape))}." for shape in sorted(scene.shapes, key=order))
    return Question(problem, " ".join(said), "")


def _read(scene: Scene) -> Question:
    said = (f"It says {one.text}." if scene.kind == "sum" else spell(one.text) for one in scene.prints)
    return Question("Read all that is printed.", " ".join(said), "")


def _read_turns(scene: Scene) -> Question:
    spans = [tuple(seconds_text(time) for time in one.life) for one in scene.prints]
    parts = [
        f"From {start} to {end} seconds: {spell(one.text)}"
        for one, (start, end) in zip(scene.prints, spans, strict=True)
    ]
    return Question("Read all that is shown, and when.", " ".join(parts), "")
