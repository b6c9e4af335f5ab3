"""Questions of the Shapes world whose answer is a number: counted, read or estimated."""

import random
from collections.abc import Callable

from onethinker_jax.data_pipeline.shapes.phrases import in_order, life_spans
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, Scene, Shape
from onethinker_jax.data_pipeline.worlds.english import plural, seconds_text, span_words
from onethinker_jax.data_pipeline.worlds.groundings import box_at
from onethinker_jax.data_pipeline.worlds.question import Asked, Question, QuestionTable
from onethinker_jax.data_pipeline.worlds.stage import place_sentence


def count_aloud(
    scene: Scene, what: str, counts: Callable[[Shape], bool], why: Callable[[Shape], str] | None = None
) -> tuple[int, str]:
    """How many objects count, and the counting: each in turn, what it is judged by, and the number so far."""
    number, said = 0, []
    for shape in in_order(scene):
        number += counts(shape)
        said.append(f"{shape.name} {why(shape)}: {number}" if why else f"{shape.name} {number}")
    return number, f"I count {what}: {', '.join(said)}."


def subtract_aloud(high: int, low: int) -> str:
    """The difference, worked out in tens from the lower number on: "From 57: 67 is 10, 77 is 20, 82 is 25."."""
    steps = [*range(10, high - low, 10), high - low]
    return f"From {low}: {', '.join(f'{low + step} is {step}' for step in steps)}."


def _count_all(scene: Scene, rng: random.Random) -> Question | None:
    number, thinking = count_aloud(scene, "objects", lambda shape: True)
    return Question("How many objects are there?", str(number), thinking)


def _count_kind(scene: Scene, rng: random.Random) -> Question | None:
    attribute = rng.choice(("colour", "shape"))
    values = [getattr(shape, attribute) for shape in scene.shapes]
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    draw = rng.random()
    pool = list(COLOURS) if attribute == "colour" else list(SHAPES)
    value = rng.choice(repeated) if repeated and draw < 0.7 else rng.choice(values if draw < 0.9 else pool)
    what = f"{value} objects" if attribute == "colour" else plural(value)
    number, thinking = count_aloud(scene, what, lambda shape: getattr(shape, attribute) == value)
    return Question(f"How many {what} are there?", str(number), thinking)


def _count_beside(scene: Scene, rng: random.Random) -> Question | None:
    if len(scene.shapes) < 2:
        return None
    shape = rng.choice(scene.shapes)
    axis, sign, words = rng.choice(
        ((0, -1, "left of"), (0, 1, "right of"), (1, -1, "above"), (1, 1, "below"))
    )
    gaps = [(other.origin[axis] - shape.origin[axis]) * sign for other in scene.shapes if other is not shape]
    if any(abs(gap) < 8 for gap in gaps):
        return None
    number, counting = count_aloud(
        scene, f"{words} it", lambda other: (other.origin[axis] - shape.origin[axis]) * sign > 0
    )
    thinking = f"{place_sentence(scene, shape)} {counting}"
    return Question(f"How many objects are {words} the {shape.name}?", str(number), thinking)


def _count_moment(scene: Scene, rng: random.Random) -> Question | None:
    time = rng.choice((0.0, scene.duration - 0.5, *(float(s) for s in range(1, int(scene.duration)))))
    if any(visible < 0.2 for visible in _shares_of_present(scene, time)):
        return None
    when = f"at {seconds_text(time)} seconds"
    number, thinking = count_aloud(
        scene, when, lambda shape: shape.present(time), lambda shape: span_words(*shape.life)
    )
    return Question(f"How many objects are visible {when}?", str(number), thinking)


def _shares_of_present(scene: Scene, time: float) -> list[float]:
    present = [i for i, shape in enumerate(scene.shapes) if shape.present(time)]
    return [scene.visible_share(i, time) for i in present]


def _count_moving(scene: Scene, rng: random.Random) -> Question | None:
    number, thinking = count_aloud(
        scene,
        "moving",
        lambda shape: shape.moves,
        lambda shape: f"moves {shape.direction}" if shape.moves else "stays",
    )
    return Question("How many objects move?", str(number), thinking)


def _read_number(scene: Scene, rng: random.Random) -> Question | None:
    numbers = [printed.text for printed in scene.prints if printed.text.isdigit()]
    if len(numbers) != 1:
        return None
    thinking = f"The digits are {' '.join(numbers[0])}."
    return Question(
        "What number is shown?" if scene.duration else "What number is printed?", numbers[0], thinking
    )


def _estimate_extent(scene: Scene, rng: random.Random) -> Question | None:
    index = rng.randrange(len(scene.shapes))
    if scene.visible_share(index, 0.0) < 1.0:
        return None
    shape, axis = scene.shapes[index], rng.choice((0, 1))
    box = box_at(scene, index, 0.0)
    low, high = box[axis], box[axis + 2]
    side, word = ("width", "wide") if axis == 0 else ("height", "tall")
    problem = f"How {word} is the {shape.name} in percent of the image {side}?"
    start, extent = round(low / 10), round((high - low) / 10)
    thinking = f"{place_sentence(scene, shape)} It spans {start} to {start + extent}. "
    return Question(problem, str(extent), thinking + subtract_aloud(start + extent, start))


def _estimate_position(scene: Scene, rng: random.Random) -> Question | None:
    shape, axis = rng.choice(scene.shapes), rng.choice((0, 1))
    side, edge = ("width", "left edge") if axis == 0 else ("height", "top")
    length = (scene.width, scene.height)[axis]
    middle = round(100 * (shape.origin[axis] + 0.5) / length)
    half = round(100 * (shape.radius + 0.5) / length)
    problem = f"How far is the centre of the {shape.name} from the {edge} in percent of the image {side}?"
    thinking = f"{place_sentence(scene, shape)} It spans {middle - half} to {middle + half}. "
    total = f"{middle - half} + {middle + half} = {2 * middle}"
    return Question(problem, str(middle), f"{thinking}{total}, half of it is {middle}.")


def _estimate_stay(scene: Scene, rng: random.Random) -> Question | None:
    spans = life_spans(scene)
    if not spans:
        return None
    what, (start, end), _ = rng.choice(spans)
    first, last, stay = seconds_text(start), seconds_text(end), seconds_text(end - start)
    thinking = f"{what.capitalize()} is seen from {first} to {last} seconds. {last} - {first} = {stay}."
    return Question(f"For how many seconds is {what} visible?", stay, thinking)


def _estimate_way(scene: Scene, rng: random.Random) -> Question | None:
    moving = [shape for shape in scene.shapes if shape.moves]
    if not moving:
        return None
    shape = rng.choice(moving)
    axis = 0 if shape.direction in ("left", "right") else 1
    size = (scene.width, scene.height)[axis]
    begin, end = (round(100 * (spot[axis] + 0.5) / size) for spot in (shape.origin, shape.target))
    problem = f"How far does the {shape.name} move in percent of the frame {('width', 'height')[axis]}?"
    way, low, high = abs(end - begin), *sorted((begin, end))
    since, until = (seconds_text(time) for time in shape.move)
    thinking = f"It moves {shape.direction}: at {since} seconds it is at {begin}, at {until} at {end}. "
    return Question(problem, str(way), thinking + subtract_aloud(high, low))


AMOUNTS: QuestionTable = {
    "numerical": {
        "image": {
            "shapes": Asked(5, ((1, _count_all), (2, _count_kind), (2, _count_beside))),
            "words": Asked(1, ((1, _read_number),)),
        },
        "video": {
            "shapes": Asked(4, ((2, _count_moment), (1, _count_moving), (1, _count_kind))),
            "words": Asked(1, ((1, _read_number),)),
        },
    },
    "regression": {
        "image": {
            "shapes": Asked(4, ((1, _estimate_extent), (1, _estimate_position))),
        },
        "video": {
            "shapes": Asked(4, ((1, _estimate_stay), (1, _estimate_way))),
        },
    },
}
