"""Questions of the Photos world whose answer is JSON; most of them every world asks."""

import random

from onethinker_jax.data_pipeline.photos.questions.phrases import extreme, life_spans
from onethinker_jax.data_pipeline.photos.scenes.scene import PhotoScene
from onethinker_jax.data_pipeline.worlds.groundings import (
    box_at,
    compact,
    ground_box,
    ground_motion,
    ground_span,
    ground_tube,
    segment_image,
    segment_video,
    track,
)
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _ground_life(scene: PhotoScene, rng: random.Random) -> Question | None:
    """When an object, a plate or a shot is there."""
    return ground_span(scene, life_spans(scene), rng)


def _ground_box(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Where something is, named or, of several, as an extreme."""
    found = extreme(scene, rng) if rng.random() < 0.2 else None
    word, sprite = found or ("", rng.choice(scene.sprites))
    names = "labelled divisions" if scene.kind == "map" else "pasted objects"
    return ground_box(scene, sprite, word, f"of the {names}")


def _ground_word(scene: PhotoScene, rng: random.Random) -> Question | None:
    """Where the plate with a word is."""
    index = rng.randrange(len(scene.sprites))
    plate = scene.sprites[index]
    problem, thinking = f"Locate the plate that says {plate.said}.", f"It is on {plate.definite}."
    return Question(problem, compact({"boxes": box_at(scene, index, 0.0)}), thinking)


GROUNDINGS: QuestionTable = {
    "temporal grounding": {
        "video": {
            "objects": Asked(5, ((2, _ground_life), (1, ground_motion))),
            "shots": Asked(5, ((1, _ground_life),)),
            "words": Asked(1, ((1, _ground_life),)),
            "digits": Asked(1, ((1, _ground_life),)),
        },
    },
    "spatial grounding": {
        "image": {
            "objects": Asked(4, ((1, _ground_box),)),
            "map": Asked(1, ((1, _ground_box),)),
            "words": Asked(1, ((1, _ground_word),)),
        },
    },
    "spatial-temporal grounding": {
        "video": {
            "objects": Asked(5, ((1, ground_tube),)),
        },
    },
    "tracking": {
        "video": {
            "objects": Asked(5, ((1, track),)),
        },
    },
    "segmentation": {
        "image": {
            "objects": Asked(4, ((1, segment_image),)),
            "map": Asked(1, ((1, segment_image),)),
        },
        "video": {
            "objects": Asked(4, ((1, segment_video),)),
        },
    },
}
