"""What questions on a scene have in common: `Question`, what is worth asking, and English for what is seen."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from onethinker_jax.data_pipeline.shapes import rendering
from onethinker_jax.data_pipeline.shapes.scene import COLOURS, PLACES, SHAPES, Scene, Shape, place
from onethinker_jax.tasks import Medium

MIN_VISIBLE = 0.5  # a question is asked about an object only while at least this share of it is seen


@dataclass(frozen=True)
class Question:
    """`problem` without placeholder; `answer` without tags; `target`: the shape whose masks are recorded."""

    problem: str
    answer: str
    thinking: str
    options: tuple[str, ...] = ()
    target: int | None = None


Builder = Callable[[Scene, random.Random], Question | None]
"""Makes a question on a scene; None where the scene cannot carry one."""


@dataclass(frozen=True)
class Asked:
    """How a task is asked on one kind of scene: its share of all records, in percent, and weights of builders."""

    share: float
    builders: tuple[tuple[float, Builder], ...]


QuestionTable = Mapping[str, Mapping[Medium, Mapping[str, Asked]]]
"""Problem type -> medium -> kind of scene -> how it is asked."""


def listed(parts: Iterable[str]) -> str:
    """The parts as English lists them: a; a and b; a, b and c. There is at least one."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def with_article(name: str) -> str:
    """A name after its article: a red star, an orange circle."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def counted(count: int, noun: str) -> str:
    """A number and its noun: 1 circle, 2 circles, 0 crosses."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def spell(text: str) -> str:
    """The characters of a text one by one, as a sentence."""
    return f"The {'digits' if text.isdigit() else 'letters'} are {' '.join(text)}."


def inventory(scene: Scene) -> str:
    """What is there, row by row: place, size, colour and shape of each object. So reasoning begins."""
    seen = [(place(scene, shape, shape.life[0]), f"{shape.size} {shape.name}") for shape in scene.shapes]
    order = sorted(seen, key=lambda one: (PLACES.index(one[0]), one[1]))
    return f"I see {', '.join(f'{where} {what}' for where, what in order)}."


def whereabouts(scene: Scene, shape: Shape, time: float = 0.0) -> str:
    """Which ninth of the frame an object is in: "in the centre", "at the upper left"."""
    spot = place(scene, shape, time)
    return f"in the {spot}" if spot == "centre" else f"at the {spot}"


def clear_place(scene: Scene, shape: Shape, time: float = 0.0) -> bool:
    """Whether the centre is off the lines between the ninths by 4% of the frame or more."""
    x, y = shape.centre(time)
    return all(
        abs(v - third) >= 0.04 for v in (x / scene.width, y / scene.height) for third in (1 / 3, 2 / 3)
    )


def seconds_text(value: float) -> str:
    """Seconds with one decimal, as answers have them."""
    return f"{value:.1f}"


def deeds(scene: Scene, shape: Shape) -> list[str]:
    """What an object does, in order: "appears", "moves left", "vanishes"; "stays still" if nothing."""
    deeds = []
    if shape.life[0] > 0:
        deeds.append("appears")
    if shape.moves:
        deeds.append(f"moves {shape.direction}")
    if shape.life[1] < scene.duration:
        deeds.append("vanishes")
    return deeds or ["stays still"]


def other_names(scene: Scene, rng: random.Random) -> list[str]:
    """Names of the scene's objects first, then of objects that are not there."""
    here = [shape.name for shape in scene.shapes]
    absent = [f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in here]
    return here + rng.sample(absent, 3)


def lone_ones(scene: Scene, attribute: str) -> list[Shape]:
    """Shapes whose colour (or shape) no other object of the scene shares."""
    values = [getattr(shape, attribute) for shape in scene.shapes]
    return [shape for shape in scene.shapes if values.count(getattr(shape, attribute)) == 1]


def extreme(scene: Scene, rng: random.Random) -> tuple[str, Shape] | None:
    """A superlative and the object it singles out by a clear margin (pictures)."""
    if len(scene.shapes) < 2:
        return None
    keys: list[tuple[str, Callable[[Shape], float], float]] = [
        ("largest", lambda s: s.radius, 4),
        ("smallest", lambda s: -s.radius, 4),
        ("leftmost", lambda s: -s.origin[0], 10),
        ("rightmost", lambda s: s.origin[0], 10),
        ("topmost", lambda s: -s.origin[1], 10),
        ("lowest", lambda s: s.origin[1], 10),
    ]
    rng.shuffle(keys)
    for word, key, margin in keys:
        first, second = sorted(scene.shapes, key=key, reverse=True)[:2]
        if key(first) - key(second) >= margin:
            return word, first
    return None


def life_spans(scene: Scene) -> list[tuple[str, tuple[float, float], str]]:
    """(what, (start, end), verb) of all that is there for a part of the video only, and is well seen."""
    spans = [
        (f"the {shape.name}", shape.life, "visible")
        for index, shape in enumerate(scene.shapes)
        if shape.life != (0.0, scene.duration) and well_seen(scene, index, *shape.life)
    ]
    texts = [printed.text for printed in scene.prints]
    spans += [
        (f"the {'number' if printed.text.isdigit() else 'word'} {printed.text}", printed.life, "shown")
        for printed in scene.prints
        if texts.count(printed.text) == 1
    ]
    return spans


def well_seen(scene: Scene, index: int, start: float, end: float) -> bool:
    """Whether at least MIN_VISIBLE of a shape is seen at every half second of the span that has a frame."""
    halves = [h / 2 for h in range(round(2 * start), round(2 * end) + 1) if h / 2 < scene.duration]
    return all(rendering.visible_share(scene, index, time) >= MIN_VISIBLE for time in halves)
