"""Scenes of the Shapes world as they are drawn by lot: pictures and videos of shapes, words and sums."""

import random
from typing import Any

from onethinker_jax.data_pipeline.shapes.scene import COLOURS, SHAPES, WORDS, Print, Scene, Shape
from onethinker_jax.data_pipeline.shapes.stamps import text_stamp

SIZES = ("small", "medium", "large")
IMAGE_RADII = {"small": (12, 14), "medium": (18, 21), "large": (26, 30)}
VIDEO_RADII = {"small": (8, 9), "medium": (12, 13), "large": (16, 18)}
IMAGE_SIDES = (96, 112, 128, 144, 160)
VIDEO_SIZES = ((96, 64), (96, 64), (96, 64), (64, 96), (64, 96), (96, 80), (112, 64), (96, 96), (128, 80))
VIDEO_TEXT_SIZES = ((96, 64), (96, 64), (112, 64), (128, 80))
VIDEO_RATES = (4, 4, 6, 8)


def image_scene(rng: random.Random, kind: str) -> Scene:
    """Draws a picture: "shapes" (1-4 objects), "words" (a word, a number or both) or "sum" (a sum to do)."""
    while True:
        width, height = rng.choice(IMAGE_SIDES), rng.choice(IMAGE_SIDES)
        if max(width, height) <= 1.5 * min(width, height):
            break
    background = _background(rng)
    if kind == "shapes":
        shapes = _scatter(rng, width, height, rng.choice((1, 1, 2, 2, 2, 3)))
        return Scene(background, shapes, kind=kind, width=width, height=height)
    if kind == "sum":
        a, b = rng.randint(2, 9), rng.randint(1, 9)
        texts = [f"{max(a, b)} - {min(a, b)}" if rng.random() < 0.4 else f"{a} + {b}"]
    else:
        number = str(rng.randint(10, 99) if rng.random() < 0.6 else rng.randint(100, 999))
        texts = rng.choice(([rng.choice(WORDS)], [number], [rng.choice(WORDS), number]))
    prints, top = [], rng.randint(4, 10)
    for text in texts:
        size = rng.choice((26, 28, 30))
        ink = text_stamp(text, size)
        free = height - 4 - ink.shape[0] - top - (30 if len(texts) - len(prints) > 1 else 0)
        y = top + rng.randint(0, max(0, free))
        prints.append(Print(text, size, (rng.randint(2, max(2, width - 3 - ink.shape[1])), y), (0.0, 0.0)))
        top = y + ink.shape[0] + 6
    return Scene(background, (), tuple(prints), kind=kind, width=width, height=height)


def video_scene(rng: random.Random, kind: str) -> Scene:
    """Draws a video: "shapes" (an anchor, a visitor, 0-2 more), "words" or "sum" (two prints in turn)."""
    width, height = rng.choice(VIDEO_SIZES if kind == "shapes" else VIDEO_TEXT_SIZES)
    duration, fps = rng.choice((4.0, 5.0, 5.0, 6.0)), rng.choice(VIDEO_RATES)
    background = _background(rng)
    frame: dict[str, Any] = {"width": width, "height": height, "duration": duration, "fps": fps}
    if kind == "shapes":
        while True:
            more = rng.choices(("visitor", "still", "anchor"), k=rng.choice((0, 0, 0, 1)))
            roles = ["anchor", "visitor", *more]
            rng.shuffle(roles)
            actors = zip(_names(rng, len(roles)), roles, strict=True)
            shapes = tuple(_actor(rng, width, height, duration, *name, role) for name, role in actors)
            scene = Scene(background, shapes, kind=kind, **frame)
            if not _colours_touch(scene) and _all_seen(scene):
                return scene
    if kind == "sum":
        texts = [str(rng.randint(1, 9)), str(rng.randint(1, 9))]
    else:
        texts = rng.sample(WORDS, 2) if rng.random() < 0.6 else [rng.choice(WORDS), str(rng.randint(10, 99))]
        rng.shuffle(texts)
    turn = rng.randint(3, round(2 * duration) - 3) / 2  # the first text is last seen at `turn` seconds
    first = rng.choice((0.0, 0.0, 0.5)), turn
    second = turn + 0.5, rng.choice((duration, duration, duration - 0.5))
    prints = []
    for text, life in zip(texts, (first, second), strict=True):
        ink = text_stamp(text, 24)
        x, y = rng.randint(2, width - 3 - ink.shape[1]), rng.randint(2, height - 3 - ink.shape[0])
        prints.append(Print(text, 24, (x, y), life))
    return Scene(background, (), tuple(prints), kind=kind, **frame)


def _background(rng: random.Random) -> tuple[int, int, int]:
    grey = rng.randint(112, 144)
    return grey + rng.randint(-5, 5), grey + rng.randint(-5, 5), grey + rng.randint(-5, 5)


def _names(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """`count` different (colour, shape); often of few colours or few shapes, so that counts vary."""
    colours, shapes = list(COLOURS), list(SHAPES)
    draw = rng.random()
    if draw < 0.25:
        colours = rng.sample(colours, 2)
    elif draw < 0.5:
        shapes = rng.sample(shapes, 2)
    return rng.sample([(colour, shape) for colour in colours for shape in shapes], count)


def _scatter(rng: random.Random, width: int, height: int, count: int) -> tuple[Shape, ...]:
    """Places `count` objects; one scene in six lets two overlap, as long as most of each is seen."""
    overlap = rng.random() < 1 / 6
    names = _names(rng, count)
    while True:
        placed: list[Shape] = []
        for colour, shape in names:
            for _ in range(40):
                size = rng.choice(SIZES)
                radius = rng.randint(*IMAGE_RADII[size])
                x, y = (
                    rng.randint(radius + 1, width - radius - 2),
                    rng.randint(radius + 1, height - radius - 2),
                )
                clearance = (radius + 2) * (0.75 if overlap else 1.0)
                if all(
                    max(abs(x - o.origin[0]), abs(y - o.origin[1])) > clearance + o.radius for o in placed
                ):
                    still: dict[str, Any] = {"life": (0.0, 0.0), "move": (0.0, 0.0)}
                    placed.append(Shape(colour, shape, size, radius, origin=(x, y), target=(x, y), **still))
                    break
        if len(placed) == count:
            return tuple(placed)


def _actor(
    rng: random.Random, width: int, height: int, duration: float, colour: str, shape: str, role: str
) -> Shape:
    """One object of a video; times are multiples of half a second."""
    halves = round(2 * duration)
    life = (0.0, duration)
    if role == "visitor":
        length = rng.randint(3, min(7, halves - 2))
        start = rng.choice((0, halves - length, rng.randint(0, halves - length)))
        life = (start / 2, (start + length) / 2)
    size = rng.choice(SIZES)
    radius = rng.randint(*VIDEO_RADII[size])
    low, high = (radius + 1, radius + 1), (width - radius - 2, height - radius - 2)
    origin = rng.randint(low[0], high[0]), rng.randint(low[1], high[1])
    target = origin
    if role == "anchor" or (role == "visitor" and rng.random() < 0.5):
        axis = rng.choice((0, 1)) if abs(width - height) < 24 else int(height > width)
        axis = axis if rng.random() < 0.7 else 1 - axis
        span = high[axis] - low[axis]
        way = round(span * rng.uniform(0.5, 1.0))
        start = low[axis] + rng.randint(0, span - way)
        ends = (start, start + way) if rng.random() < 0.5 else (start + way, start)
        drift = rng.randint(-way // 4, way // 4)
        other = min(max(origin[1 - axis] + drift, low[1 - axis]), high[1 - axis])
        origin = (ends[0], origin[1]) if axis == 0 else (origin[0], ends[0])
        target = (ends[1], other) if axis == 0 else (other, ends[1])
    move = life
    if role == "anchor" and rng.random() < 0.4:  # it moves in a part of its life only
        length = rng.randint(3, halves - 2)
        start = rng.randint(0, halves - length)
        move = (start / 2, (start + length) / 2)
    way = {"life": life, "origin": origin, "target": target, "move": move}
    return Shape(colour, shape, size, radius, role=role, **way)


def _colours_touch(scene: Scene) -> bool:
    """Whether two objects of one colour ever come so near that they could be taken for one."""
    for time in scene.times:
        present = [shape for shape in scene.shapes if shape.present(time)]
        for number, one in enumerate(present):
            for other in present[number + 1 :]:
                gaps = (abs(a - b) for a, b in zip(one.centre(time), other.centre(time), strict=True))
                if one.colour == other.colour and max(gaps) <= one.radius + other.radius + 2:
                    return True
    return False


def _all_seen(scene: Scene) -> bool:
    """Whether every object is at some half second hardly covered."""
    halves = [half / 2 for half in range(round(2 * scene.duration))]
    return all(
        any(scene.visible_share(index, time) >= 0.8 for time in halves) for index in range(len(scene.shapes))
    )
