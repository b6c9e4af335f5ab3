"""Questions whose answer is JSON: times, boxes, tubes, tracks, and prompts of masks.

JSON without spaces, integer coordinates of 0-1000, times with one decimal. Second s of a video means its
frame at exactly s seconds; boxes are of the visible part.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence

from onethinker_jax.data_pipeline.worlds.english import seconds_text, sentence, span_words
from onethinker_jax.data_pipeline.worlds.masks import mask_box, mask_prompts
from onethinker_jax.data_pipeline.worlds.question import Question
from onethinker_jax.data_pipeline.worlds.stage import Actor, Stage, place, place_sentence, whereabouts

MAX_TRACKED_SECONDS = 32

Span = tuple[str, tuple[float, float], str]
"""What is there for a part of a video only ("the red star"), its start and end in seconds, and a verb ("visible")."""


def span_text(start: float, end: float) -> str:
    """A span as answers have it."""
    return f"[{seconds_text(start)},{seconds_text(end)}]"


def compact(value: object) -> str:
    """JSON without spaces: in coordinates every space would be a token."""
    return json.dumps(value, separators=(",", ":"))


def box_at(scene: Stage, index: int, time: float) -> list[int]:
    """The box of the visible part of an actor at `time` seconds, 0-1000."""
    return mask_box(scene.visible_mask(index, time))


def ground_box(scene: Stage, actor: Actor, word: str = "", among: str = "") -> Question:
    """Where an actor of a picture is: asked by its name, or as what `word` singles out ("largest", "object")."""
    problem, thinking = f"Locate {actor.definite}.", place_sentence(scene, actor)
    if word:
        problem, thinking = f"Locate the {word} {among}.", f"The {word} is {actor.definite}. {thinking}"
    index = scene.actors.index(actor)
    return Question(problem, compact({"boxes": box_at(scene, index, 0.0)}), thinking)


def ground_span(scene: Stage, spans: Sequence[Span], rng: random.Random) -> Question | None:
    """When one of these is there; None where nothing comes or goes."""
    if not spans:
        return None
    what, (start, end), verb = rng.choice(spans)
    shown = f"{what.capitalize() if what.islower() else what[0].upper() + what[1:]}"
    thinking = f"{shown} {'is there from the start' if start == 0 else 'is not there at the start'} and "
    thinking += "stays to the end." if end == scene.duration else "goes before the end."
    return Question(f"When is {what} {verb}?", f'{{"time":{span_text(start, end)}}}', thinking)


def ground_motion(scene: Stage, rng: random.Random) -> Question | None:
    """When an actor that is there throughout moves; None where none rests for a part of the video."""
    moving = [a for a in scene.actors if a.moves and a.role == "anchor" and a.move != (0.0, scene.duration)]
    if not moving:
        return None
    actor = rng.choice(moving)
    it, where = sentence(actor.definite), whereabouts(scene, actor)
    thinking = f"{it} rests {where}, moves {actor.direction}, then rests again."
    if actor.move[0] == 0:
        thinking = f"{it} moves {actor.direction} from the start, then rests."
    elif actor.move[1] == scene.duration:
        thinking = f"{it} rests {where}, then moves {actor.direction} to the end."
    return Question(f"When does {actor.definite} move?", f'{{"time":{span_text(*actor.move)}}}', thinking)


def _boxes(scene: Stage, index: int, seconds: Iterable[int]) -> dict[str, list[int]]:
    return {str(second): box_at(scene, index, float(second)) for second in seconds}


def _spot(scene: Stage, index: int, time: float) -> str:
    """Where an actor is, in words, and the hundreds of its box's four sides: "upper left 0134"."""
    hundreds = (min(side // 100, 9) for side in box_at(scene, index, time))
    return f"{place(scene, scene.actors[index], time)} {''.join(map(str, hundreds))}"


def _spots(scene: Stage, index: int, seconds: Iterable[int]) -> str:
    """Where an actor is at each of the seconds: "1: upper left 0134, 2: centre 3467"."""
    return ", ".join(f"{second}: {_spot(scene, index, float(second))}" for second in seconds)


def ground_tube(scene: Stage, rng: random.Random) -> Question | None:
    """When an actor that comes or goes is there, and its box at each whole second; None without a well seen one."""
    visitors = [
        i
        for i, actor in enumerate(scene.actors)
        if actor.life != (0.0, scene.duration) and scene.well_seen(i, *actor.life)
    ]
    if not visitors:
        return None
    index = rng.choice(visitors)
    actor = scene.actors[index]
    start, end = actor.life
    seconds = [s for s in range((math.ceil(start)), (math.floor(end)) + 1) if s < scene.duration]
    boxes = compact(_boxes(scene, index, seconds))
    thinking = f"{sentence(actor.definite)} is seen {span_words(start, end)} seconds. "
    thinking += f"{_spots(scene, index, seconds)}."
    answer = f'{{"time":{span_text(start, end)},"boxes":{boxes}}}'
    return Question(f"When and where is {actor.definite} visible?", answer, thinking)


def track(scene: Stage, rng: random.Random) -> Question | None:
    """An actor's boxes at the seconds 1, 2, …, given that at 0; None without one that is well seen throughout."""
    seconds = scene.whole_seconds[1 : MAX_TRACKED_SECONDS + 1]
    whole = (0.0, scene.duration)
    steady = [i for i, a in enumerate(scene.actors) if a.life == whole and scene.well_seen(i, *whole)]
    moving = [i for i in steady if scene.actors[i].moves]
    if not steady:
        return None
    index = rng.choice(moving or steady)
    actor = scene.actors[index]
    problem = f"Track the object with the box {compact(box_at(scene, index, 0.0))} at 0 seconds."
    thinking = f"The box is {whereabouts(scene, actor)}: {actor.definite}. {_spots(scene, index, seconds)}."
    return Question(problem, compact({"boxes": _boxes(scene, index, seconds)}), thinking)


def segment_image(scene: Stage, rng: random.Random) -> Question | None:
    """Box and points that prompt an actor's mask; None where three negative points do not fit the frame."""
    index = rng.randrange(len(scene.actors))
    prompts = mask_prompts(scene.visible_mask(index, 0.0))
    if prompts is None:
        return None
    actor = scene.actors[index]
    return Question(
        f"Segment {actor.definite}.", compact(prompts), place_sentence(scene, actor), target=index
    )


def segment_video(scene: Stage, rng: random.Random) -> Question | None:
    """The key frame is the first whole second at which 95% of the actor's best view is seen."""
    index = rng.randrange(len(scene.actors))
    visitors = [i for i, actor in enumerate(scene.actors) if actor.life[0] > 0]
    if visitors and rng.random() < 0.8:
        index = rng.choice(visitors)
    actor = scene.actors[index]
    if not scene.well_seen(index, *actor.life):
        return None
    seconds = [s for s in scene.whole_seconds if actor.present(s)]
    areas = {second: int(scene.visible_mask(index, float(second)).sum()) for second in seconds}
    key = next(second for second in seconds if areas[second] >= 0.95 * max(areas.values()))
    prompts = mask_prompts(scene.visible_mask(index, float(key)))
    if prompts is None:
        return None
    thinking = f"It is well seen at {key} seconds: {_spot(scene, index, float(key))}."
    return Question(
        f"Segment {actor.definite}.", compact({"time": float(key), **prompts}), thinking, target=index
    )
