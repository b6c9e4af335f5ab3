"""Scenes of the Shapes world: what is in a picture or a video, where, and when.

A scene is a flat background with a few coloured shapes, each unique by (colour, shape) in its scene, and
perhaps printed words or numbers. An image is a scene of duration 0. Everything is drawn without
antialiasing on whole pixels, so that the mask of an object is known exactly; later shapes lie on top of
earlier ones and print lies on top of all. Boxes and masks are of the VISIBLE part of an object. Presence is
closed at both ends: an object with the life [1.5, 4.0] is in every frame whose time t has 1.5 <= t <= 4.0.
"""

import math
import random
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (245, 205, 30),
    "purple": (140, 50, 170),
    "orange": (245, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES = ("small", "medium", "large")
IMAGE_RADII = {"small": (12, 14), "medium": (18, 21), "large": (26, 30)}
VIDEO_RADII = {"small": (8, 9), "medium": (12, 13), "large": (16, 18)}
# fmt: off
WORDS = (
    "LAMP", "TREE", "BOOK", "FISH", "MOON", "STAR", "RAIN", "SNOW", "ROAD", "SHIP", "DOOR", "CAKE",
    "BIRD", "KING", "WOLF", "ROSE", "SALT", "WIND", "GOLD", "HAND", "LEAF", "MILK", "NEST", "DESK",
    "CORN", "FROG", "JUMP", "ZERO", "OVEN", "PARK", "VASE", "QUIZ",
)
# fmt: on
INK = (20, 20, 30)
IMAGE_SIDES = (96, 112, 128, 144, 160)
VIDEO_SIZES = ((96, 64), (96, 64), (96, 64), (64, 96), (64, 96), (96, 80), (112, 64), (96, 96), (128, 80))
VIDEO_TEXT_SIZES = ((96, 64), (96, 64), (112, 64), (128, 80))
VIDEO_RATES = (4, 4, 6, 8)
PLACES = tuple(
    f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "middle", "right")
)
PLACES = (*PLACES[:4], "centre", *PLACES[5:])
"""The ninths of a frame, row by row."""
MIN_VISIBLE = 0.5  # a question is asked about an object only while at least this share of it is seen


@dataclass(frozen=True)
class Shape:
    """One object: what it is, when it is there (seconds, both ends included) and how it moves.

    It stands at `origin` (x, y of its centre, pixels) until `move[0]`, goes straight to `target` until
    `move[1]` and stays there. `role` says what the scene wanted it for: "anchor" (there throughout,
    moving), "visitor" (there for a part of the video) or "still".
    """

    colour: str
    shape: str
    size: str
    radius: int
    life: tuple[float, float]
    origin: tuple[int, int]
    target: tuple[int, int]
    move: tuple[float, float]
    role: str = "still"

    @property
    def name(self) -> str:
        """Colour and shape, which no two objects of a scene share: "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def moves(self) -> bool:
        """Whether it ever changes its place."""
        return self.origin != self.target

    @property
    def direction(self) -> str:
        """left, right, up or down: the main axis of its way; empty if it does not move."""
        dx, dy = self.target[0] - self.origin[0], self.target[1] - self.origin[1]
        if dx == 0 and dy == 0:
            return ""
        if abs(dx) >= abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"

    def present(self, time: float) -> bool:
        """Whether it is there at `time` seconds, covered by others or not."""
        return self.life[0] <= time <= self.life[1]

    def centre(self, time: float) -> tuple[int, int]:
        """Centre in whole pixels at `time` seconds."""
        begin, end = self.move
        share = 0.0 if time <= begin else 1.0 if time >= end else (time - begin) / (end - begin)
        (x0, y0), (x1, y1) = self.origin, self.target
        return round(x0 + (x1 - x0) * share), round(y0 + (y1 - y0) * share)


@dataclass(frozen=True)
class Print:
    """Printed text: `corner` is the left top pixel of its ink, `height` the font's size in pixels."""

    text: str
    height: int
    corner: tuple[int, int]
    life: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """A picture (`duration` 0) or a video (`duration` seconds at `fps` frames a second)."""

    kind: str  # "shapes", "words" or "sum"
    width: int
    height: int
    background: tuple[int, int, int]
    shapes: tuple[Shape, ...]
    prints: tuple[Print, ...] = ()
    duration: float = 0.0
    fps: int = 0

    @property
    def data_type(self) -> str:
        """What records of the scene say: image or video."""
        return "video" if self.duration else "image"

    @property
    def times(self) -> list[float]:
        """Presentation time of every frame, seconds; [0.0] for an image."""
        return [i / self.fps for i in range(round(self.duration * self.fps))] if self.duration else [0.0]


@lru_cache(maxsize=512)
def shape_stamp(shape: str, radius: int) -> np.ndarray:
    """The pixels of a shape inside its bounding square, bool [2r+1, 2r+1]."""
    side, r = 2 * radius + 1, float(radius)
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((0, 0, side - 1, side - 1), fill=1)
    elif shape == "square":
        draw.rectangle((0, 0, side - 1, side - 1), fill=1)
    elif shape == "triangle":
        draw.polygon([(r, 0), (side - 1, side - 1), (0, side - 1)], fill=1)
    elif shape == "cross":
        arm = max(2, round(0.34 * radius))
        draw.rectangle((radius - arm, 0, radius + arm, side - 1), fill=1)
        draw.rectangle((0, radius - arm, side - 1, radius + arm), fill=1)
    elif shape == "star":
        points = []
        for i in range(10):
            reach, angle = (r if i % 2 == 0 else 0.45 * r), math.pi * (i / 5 - 0.5)
            points.append((r + reach * math.cos(angle), r + reach * math.sin(angle)))
        draw.polygon(points, fill=1)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return np.asarray(image, dtype=bool)


@lru_cache(maxsize=512)
def text_stamp(text: str, height: int) -> np.ndarray:
    """The ink of `text` in Pillow's own font, cropped to the ink: bool [h, w]."""
    font = ImageFont.load_default(size=height)
    _, _, right, bottom = font.getbbox(text, stroke_width=0.5)
    image = Image.new("L", (int(right) + 4, int(bottom) + 4))
    ImageDraw.Draw(image).text((1, 1), text, font=font, fill=255, stroke_width=0.5)
    ink = np.asarray(image) >= 110
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def label_map(scene: Scene, time: float) -> np.ndarray:
    """uint8 [H, W]: 0 background, i + 1 where shape i is the topmost, 255 where print is."""
    labels = np.zeros((scene.height, scene.width), np.uint8)
    for index, shape in enumerate(scene.shapes):
        if shape.present(time):
            x, y = shape.centre(time)
            r = shape.radius
            labels[y - r : y + r + 1, x - r : x + r + 1][shape_stamp(shape.shape, r)] = index + 1
    for printed in scene.prints:
        if printed.life[0] <= time <= printed.life[1]:
            ink, (x, y) = text_stamp(printed.text, printed.height), printed.corner
            labels[y : y + ink.shape[0], x : x + ink.shape[1]][ink] = 255
    return labels


def render(scene: Scene, time: float) -> np.ndarray:
    """uint8 [H, W, 3]: the frame at `time` seconds."""
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[255] = scene.background, INK
    for index, shape in enumerate(scene.shapes):
        palette[index + 1] = COLOURS[shape.colour]
    return np.take(palette, label_map(scene, time), axis=0)


def visible_mask(scene: Scene, index: int, time: float) -> np.ndarray:
    """Where shape `index` is seen at `time`, bool [H, W]; all False when it is away or covered."""
    return label_map(scene, time) == index + 1


def visible_share(scene: Scene, index: int, time: float) -> float:
    """Seen pixels over all pixels of shape `index` at `time`; 0 while it is away."""
    shape = scene.shapes[index]
    return float(visible_mask(scene, index, time).sum() / shape_stamp(shape.shape, shape.radius).sum())


def mask_box(mask: np.ndarray) -> list[int]:
    """[x1, y1, x2, y2] in 0-1000: extent of a bool [H, W] mask that is not empty; right, bottom exclusive."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [
        round(1000 * int(columns[0]) / width),
        round(1000 * int(rows[0]) / height),
        round(1000 * (int(columns[-1]) + 1) / width),
        round(1000 * (int(rows[-1]) + 1) / height),
    ]


def positive_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 inside a bool [H, W] mask: the middle of its columns at 1/4, 1/2 and 3/4."""
    columns = np.flatnonzero(mask.any(0))
    points = []
    for share in (0.25, 0.5, 0.75):
        x = int(columns[round(share * (len(columns) - 1))])
        rows = np.flatnonzero(mask[:, x])
        points.append(_to_thousand(x, int(rows[len(rows) // 2]), mask.shape))
    return points


def negative_points(mask: np.ndarray) -> list[list[int]]:
    """Three points in 0-1000 outside a bool [H, W] mask: left, right, above, below its box, then corners.

    The first three of these inside the frame and off the object are taken, so that they can be learnt.
    Fewer than three come back if there are no more.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x1, x2, y1, y2 = int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])
    gap = 3 + (x2 - x1 + y2 - y1) // 8
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    places = [(x1 - gap, y), (x2 + gap, y), (x, y1 - gap), (x, y2 + gap)]
    places += [(x1 - gap, y1 - gap), (x2 + gap, y1 - gap), (x1 - gap, y2 + gap), (x2 + gap, y2 + gap)]
    inside = [(a, b) for a, b in places if 0 <= a < width and 0 <= b < height and not mask[b, a]]
    return [_to_thousand(a, b, mask.shape) for a, b in inside[:3]]


def _to_thousand(x: int, y: int, size: tuple[int, ...]) -> list[int]:
    return [round(1000 * (x + 0.5) / size[1]), round(1000 * (y + 0.5) / size[0])]


def place(scene: Scene, shape: Shape, time: float) -> str:
    """In words, which ninth of the frame holds the centre: one of `PLACES`."""
    x, y = shape.centre(time)
    column = min(2, 3 * x // scene.width)
    row = min(2, 3 * y // scene.height)
    return PLACES[3 * row + column]


def image_scene(rng: random.Random, kind: str) -> Scene:
    """Draws a picture: "shapes" (1-4 objects), "words" (a word, a number or both) or "sum" (a sum to do)."""
    while True:
        width, height = rng.choice(IMAGE_SIDES), rng.choice(IMAGE_SIDES)
        if max(width, height) <= 1.5 * min(width, height):
            break
    background = _background(rng)
    if kind == "shapes":
        shapes = _scatter(rng, width, height, rng.choice((1, 1, 2, 2, 2, 3)))
        return Scene(kind, width, height, background, shapes)
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
    return Scene(kind, width, height, background, (), tuple(prints))


def video_scene(rng: random.Random, kind: str) -> Scene:
    """Draws a video: "shapes" (an anchor, a visitor, 0-2 more), "words" or "sum" (two prints in turn)."""
    width, height = rng.choice(VIDEO_SIZES if kind == "shapes" else VIDEO_TEXT_SIZES)
    duration, fps = rng.choice((4.0, 5.0, 5.0, 6.0)), rng.choice(VIDEO_RATES)
    background = _background(rng)
    if kind == "shapes":
        while True:
            more = rng.choices(("visitor", "still", "anchor"), k=rng.choice((0, 0, 0, 1)))
            roles = ["anchor", "visitor", *more]
            rng.shuffle(roles)
            actors = zip(_names(rng, len(roles)), roles, strict=True)
            shapes = tuple(_actor(rng, width, height, duration, *name, role) for name, role in actors)
            scene = Scene(kind, width, height, background, shapes, (), duration, fps)
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
    return Scene(kind, width, height, background, (), tuple(prints), duration, fps)


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
                    placed.append(Shape(colour, shape, size, radius, (0.0, 0.0), (x, y), (x, y), (0.0, 0.0)))
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
    return Shape(colour, shape, size, radius, life, origin, target, move, role)


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
        any(visible_share(scene, index, time) >= 0.8 for time in halves) for index in range(len(scene.shapes))
    )


def write_png(scene: Scene, path: Path) -> None:
    """Writes an image scene as a PNG file."""
    Image.fromarray(render(scene, 0.0)).save(path, compress_level=4)


def write_mp4(scene: Scene, path: Path) -> None:
    """Writes a video scene as H.264 in MP4, with settings that give the same pixels each time."""
    # One thread is not enough: x264's macroblock-tree lookahead, as vectorised, still varied between runs.
    options = {"crf": "16", "preset": "veryfast", "threads": "1", "g": "250"}
    options["x264-params"] = "mbtree=0:cpu-independent=1"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=scene.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.thread_count = 1
        for index, time in enumerate(scene.times):
            frame = av.VideoFrame.from_ndarray(render(scene, time), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, scene.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
