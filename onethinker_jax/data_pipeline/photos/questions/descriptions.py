"""Captions of the Photos world that are nothing but what is to be seen, without a chain of thought and without tags."""

import random
from collections.abc import Iterable

from onethinker_jax.data_pipeline.photos.questions.phrases import inventory
from onethinker_jax.data_pipeline.photos.scenes.pools import phrase_of_view
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.descriptions import describe_actors
from onethinker_jax.data_pipeline.worlds.english import listed, seconds_text, spell
from onethinker_jax.data_pipeline.worlds.question import Question


def describe(scene: PhotoScene, rng: random.Random) -> Question:
    """One of the captions that the scene's kind and medium have."""
    if scene.kind == "view":
        return Question("What does the photograph show?", f"It shows {phrase_of_view(scene.title)}.", "")
    if scene.kind == "shots":
        spans = ((shot.name, shot.start, shot.end) for shot in scene.shots)
        return _in_turn("What is shown, and when?", spans)
    if scene.kind in ("words", "digits"):
        return _read_turns(scene) if scene.duration else _read(scene)
    return describe_actors(scene, inventory(scene), rng)


def _in_turn(problem: str, spans: Iterable[tuple[str, float, float]]) -> Question:
    said = (
        f"From {seconds_text(start)} to {seconds_text(end)} seconds: {what}." for what, start, end in spans
    )
    return Question(problem, " ".join(said), "")


def _read(scene: PhotoScene) -> Question:
    """From left to right, as plates and slips are ordered in pictures."""
    if scene.kind == "digits":
        return Question("Read all digits.", f"{listed(sprite.said for sprite in scene.sprites)}.", "")
    said = (f"On the {plate.name}: {spell(plate.said)}" for plate in scene.sprites)
    return Question("Read all plates.", " ".join(said), "")


def _read_turns(scene: PhotoScene) -> Question:
    spans = (
        (sprite.said if scene.kind == "digits" else spell(sprite.said).rstrip("."), *sprite.life)
        for sprite in scene.sprites
    )
    return _in_turn("Read all that is shown, and when.", spans)
