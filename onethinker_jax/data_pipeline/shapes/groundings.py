"""Questions of the Shapes world whose answer is JSON; most of them every world asks."""

import random

from onethinker_jax.data_pipeline.shapes.phrases import extreme, life_spans
from onethinker_jax.data_pipeline.shapes.scene import Scene
from onethinker_jax.data_pipeline.worlds.groundings import (
    ground_box,
    ground_motion,
    ground_span,
    ground_tube,
    segment_image,
    segment_video,
    track,
)
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable


def _ground_life(scene: Scene, rng: random.Random) -> Question | None:
    """When an object or a print is there."""
    return ground_span(scene, life_spans(scene), rng)


def _ground_box(scene: Scene, rng: random.Random) -> Question | None:
    """Where an object is, named by colour and shape or as an extreme ("the largest")."""
    found = extreme(scene, rng) if rng.random() < 0.25 else None
    word, shape = found or ("", rng.choice(scene.shapes))
    return ground_box(scene, shape, word, "object")


GROUNDINGS: QuestionTable = {
    "temporal grounding": {
        "video": {
            "shapes": Asked(9, ((2, _ground_life), (1, ground_motion))),
            "words": Asked(2, ((1, _ground_life),)),
            "sum": Asked(1, ((1, _ground_life),)),
        },
    },
    "spatial grounding": {
        "image": {
            "shapes": Asked(6, ((1, _ground_box),)),
        },
    },
    "spatial-temporal grounding": {
        "video": {
            "shapes": Asked(5, ((1, ground_tube),)),
        },
    },
    "tracking": {
        "video": {
            "shapes": Asked(5, ((1, track),)),
        },
    },
    "segmentation": {
        "image": {
            "shapes": Asked(5, ((1, segment_image),)),
        },
        "video": {
            "shapes": Asked(4, ((1, segment_video),)),
        },
    },
}
"""Problem type -> medium -> kind of scene -> its share of the records, and who makes its questions."""
