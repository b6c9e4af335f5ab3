"""What a scene of the Shapes world is: shapes and prints, where and when.

A scene is a flat background with a few coloured shapes, each unique by (colour, shape) in its scene, and
perhaps printed words or numbers. An image is a scene of duration 0. Presence is closed at both ends: an object
with the life [1.5, 4.0] is in every frame whose time t has 1.5 <= t <= 4.0.
"""

from dataclasses import dataclass

COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (245, 205, 30),
    "purple": (140, 50, 170),
    "orange": (245, 130, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
# fmt: off
WORDS = (
    "LAMP", "TREE", "BOOK", "FISH", "MOON", "STAR", "RAIN", "SNOW", "ROAD", "SHIP", "DOOR", "CAKE",
    "BIRD", "KING", "WOLF", "ROSE", "SALT", "WIND", "GOLD", "HAND", "LEAF", "MILK", "NEST", "DESK",
    "CORN", "FROG", "JUMP", "ZERO", "OVEN", "PARK", "VASE", "QUIZ",
)
# fmt: on
PLACES = tuple(
    f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "middle", "right")
)
PLACES = (*PLACES[:4], "centre", *PLACES[5:])
"""The ninths of a frame, row by row."""


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


def place(scene: Scene, shape: Shape, time: float) -> str:
    """In words, which ninth of the frame holds the centre: one of `PLACES`."""
    x, y = shape.centre(time)
    column = min(2, 3 * x // scene.width)
    row = min(2, 3 * y // scene.height)
    return PLACES[3 * row + column]
