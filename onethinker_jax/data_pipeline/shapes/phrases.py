"""What questions on a scene of shapes have in common: what is worth asking, and English for what is seen."""

import random
from collections.abc import Callable

from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, Scene, Shape
from onethinker_jax.data_pipeline.worlds.groundings import Span
from onethinker_jax.data_pipeline.worlds.stage import PLACES, place


def inventory(scene: Scene) -> str:
    """What is there, row by row: place, size, colour and shape of each object. So reasoning begins."""
    seen = (f"{place(scene, shape, shape.life[0])} {shape.size} {shape.name}" for shape in in_order(scene))
    return f"I see {', '.join(seen)}."


def in_order(scene: Scene) -> list[Shape]:
    """The objects row by row, of those in one ninth of the frame the larger first: as all reasoning lists them."""
    return sorted(
        scene.shapes,
        key=lambda shape: (PLACES.index(place(scene, shape, shape.life[0])), shape.size, shape.name),
    )


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


def life_spans(scene: Scene) -> list[Span]:
    """The spans of all that is there for a part of the video only, and is well seen."""
    spans = [
        (f"the {shape.name}", shape.life, "visible")
        for index, shape in enumerate(scene.shapes)
        if shape.life != (0.0, scene.duration) and scene.well_seen(index, *shape.life)
    ]
    texts = [printed.text for printed in scene.prints]
    spans += [
        (f"the {'number' if printed.text.isdigit() else 'word'} {printed.text}", printed.life, "shown")
        for printed in scene.prints
        if texts.count(printed.text) == 1
    ]
    return spans
