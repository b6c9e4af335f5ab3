"""Captions of the Shapes world that are nothing but what is to be seen, without a chain of thought and without tags."""

import random

from onethinker_jax.data_pipeline.shapes.phrases import inventory
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.worlds.descriptions import describe_actors
from onethinker_jax.data_pipeline.worlds.english import seconds_text, spell
from onethinker_jax.data_pipeline.worlds.question import Question


def describe(scene: Scene, rng: random.Random) -> Question:
    """One of the captions that the scene's kind and medium have."""
    if scene.prints:
        return _read_turns(scene) if scene.duration else _read(scene)
    return describe_actors(scene, inventory(scene), rng)


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
