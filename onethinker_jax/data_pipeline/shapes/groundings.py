"""Questions of the Shapes world whose answer is JSON: times, boxes, tubes, tracks, and prompts of masks.

JSON without spaces, integer coordinates of 0-1000, times with one decimal. Second s of a video means its
frame at exactly s seconds; boxes are of the visible part.
"""

import json
import math
import random
from collections.abc import Iterable

import numpy as np

from onethinker_jax.data_pipeline.shapes import rendering
from onethinker_jax.data_pipeline.shapes.phrases import (
    Asked,
    Question,
    QuestionTable,
    extreme,
    life_spans,
    seconds_text,
    well_seen,
    whereabouts,
)
from onethinker_jax.data_pipeline.shapes.scene import Scene, Shape

MAX_TRACKED_SECONDS = 32


def _span_text(start: float, end: float) -> str:
    return f"[{seconds_text(start)},{seconds_text(end)}]"


def _compact(value: object) -> str:
    """JSON without spaces: in coordinates every space would be a token."""
    return json.dumps(value, separators=(",", ":"))


def ground_life(scene: Scene, rng: random.Random) -> Question | None:
    """When an object or a print is there; None where nothing comes or goes."""
    spans = life_spans(scene)
    if not spans:
        return None
    what, (start, end), verb = rng.choice(spans)
    shown = f"{what.capitalize() if what.islower() else what[0].upper() + what[1:]}"
    thinking = f"{shown} {'is there from the start' if start == 0 else 'is not there at the start'} and "
    thinking += "stays to the end." if end == scene.duration else "goes before the end."
    return Question(f"When is {what} {verb}?", f'{{"time":{_span_text(start, end)}}}', thinking)


def ground_motion(scene: Scene, rng: random.Random) -> Question | None:
    """When an object that is there throughout moves; None where none rests for a part of the video."""
    moving = [s for s in scene.shapes if s.moves and s.role == "anchor" and s.move != (0.0, scene.duration)]
    if not moving:
        return None
    shape = rng.choice(moving)
    thinking = (
        f"The {shape.name} rests {whereabouts(scene, shape)}, moves {shape.direction}, then rests again."
    )
    if shape.move[0] == 0:
        thinking = f"The {shape.name} moves {shape.direction} from the start, then rests."
    elif shape.move[1] == scene.duration:
        thinking = (
            f"The {shape.name} rests {whereabouts(scene, shape)}, then moves {shape.direction} to the end."
        )
    return Question(f"When does the {shape.name} move?", f'{{"time":{_span_text(*shape.move)}}}', thinking)


def _box_at(scene: Scene, index: int, time: float) -> list[int]:
    return rendering.mask_box(rendering.visible_mask(scene, index, time))


def ground_box(scene: Scene, rng: random.Random) -> Question | None:
    """Where an object is, named by colour and shape or as an extreme ("the largest")."""
    found = extreme(scene, rng) if rng.random() < 0.25 else None
    shape = found[1] if found else rng.choice(scene.shapes)
    index = scene.shapes.index(shape)
    if found:
        problem, thinking = f"Locate the {found[0]} object.", f"The {found[0]} is the {shape.name}."
    else:
        problem, thinking = f"Locate the {shape.name}.", ""
    return Question(problem, _compact({"boxes": _box_at(scene, index, 0.0)}), thinking)


def _boxes(scene: Scene, index: int, seconds: Iterable[int]) -> dict[str, list[int]]:
    return {str(second): _box_at(scene, index, float(second)) for second in seconds}


def _way(scene: Scene, shape: Shape) -> str:
    begin, end = (whereabouts(scene, shape, time) for time in shape.life)
    if not shape.moves:
        return f"It stays {begin}"
    return f"It moves {shape.direction} from {begin[3:]} to {end[3:]}"


def ground_tube(scene: Scene, rng: random.Random) -> Question | None:
    """When an object that comes or goes is there, and its box at each whole second; None without a well seen one."""
    visitors = [
        i
        for i, shape in enumerate(scene.shapes)
        if shape.life != (0.0, scene.duration) and well_seen(scene, i, *shape.life)
    ]
    if not visitors:
        return None
    index = rng.choice(visitors)
    shape = scene.shapes[index]
    start, end = shape.life
    seconds = [s for s in range((math.ceil(start)), (math.floor(end)) + 1) if s < scene.duration]
    boxes = _compact(_boxes(scene, index, seconds))
    thinking = f"The {shape.name} is seen from {seconds_text(start)} to {seconds_text(end)} seconds. "
    thinking += f"{_way(scene, shape)}."
    answer = f'{{"time":{_span_text(start, end)},"boxes":{boxes}}}'
    return Question(f"When and where is the {shape.name} visible?", answer, thinking)


def track(scene: Scene, rng: random.Random) -> Question | None:
    """An object's boxes at the seconds 1, 2, …, given that at 0; None without one that is well seen throughout."""
    last = min(MAX_TRACKED_SECONDS, (math.ceil(scene.duration)) - 1)
    whole = (0.0, scene.duration)
    actors = [i for i, s in enumerate(scene.shapes) if s.life == whole and well_seen(scene, i, *whole)]
    moving = [i for i in actors if scene.shapes[i].moves]
    if not actors:
        return None
    index = rng.choice(moving or actors)
    shape = scene.shapes[index]
    problem = f"Track the object with the box {_compact(_box_at(scene, index, 0.0))} at 0 seconds."
    thinking = f"It is the {shape.name}. {_way(scene, shape)}."
    return Question(problem, _compact({"boxes": _boxes(scene, index, range(1, last + 1))}), thinking)


def _mask_prompts(mask: np.ndarray) -> dict[str, list] | None:
    """Box, three points on the object and three beside it; None if no three lie beside it in the frame."""
    negative = rendering.negative_points(mask)
    if len(negative) < 3:
        return None
    boxes = rendering.mask_box(mask)
    return {"boxes": boxes, "positive_points": rendering.positive_points(mask), "negative_points": negative}


def segment_image(scene: Scene, rng: random.Random) -> Question | None:
    """Box and points that prompt an object's mask; None where three negative points do not fit the frame."""
    index = rng.randrange(len(scene.shapes))
    shape = scene.shapes[index]
    prompts = _mask_prompts(rendering.visible_mask(scene, index, 0.0))
    if prompts is None:
        return None
    return Question(f"Segment the {shape.name}.", _compact(prompts), "", target=index)


def segment_video(scene: Scene, rng: random.Random) -> Question | None:
    """The key frame is the first whole second at which 95% of the object's best view is seen."""
    index = rng.randrange(len(scene.shapes))
    visitors = [i for i, shape in enumerate(scene.shapes) if shape.life[0] > 0]
    if visitors and rng.random() < 0.8:
        index = rng.choice(visitors)
    shape = scene.shapes[index]
    if not well_seen(scene, index, *shape.life):
        return None
    seconds = [s for s in range(math.ceil(scene.duration)) if shape.present(s)]
    areas = {second: int(rendering.visible_mask(scene, index, float(second)).sum()) for second in seconds}
    key = next(second for second in seconds if areas[second] >= 0.95 * max(areas.values()))
    prompts = _mask_prompts(rendering.visible_mask(scene, index, float(key)))
    if prompts is None:
        return None
    thinking = f"It is well seen at {key} seconds, {whereabouts(scene, shape, float(key))}."
    return Question(
        f"Segment the {shape.name}.", _compact({"time": float(key), **prompts}), thinking, target=index
    )


GROUNDINGS: QuestionTable = {
    "temporal grounding": {
        "video": {
            "shapes": Asked(9, ((2, ground_life), (1, ground_motion))),
            "words": Asked(2, ((1, ground_life),)),
            "sum": Asked(1, ((1, ground_life),)),
        },
    },
    "spatial grounding": {
        "image": {
            "shapes": Asked(6, ((1, ground_box),)),
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
