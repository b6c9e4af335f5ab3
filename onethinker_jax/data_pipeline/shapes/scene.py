"""What a scene of the Shapes world is: shapes and prints, where and when.

A scene is a flat background with a few coloured shapes, each unique by (colour, shape) in its scene, and
perhaps printed words or numbers. Everything is drawn without antialiasing on whole pixels, so that the mask of an
object is known exactly; later shapes lie on top of earlier ones and print lies on top of all.
"""

from dataclasses import dataclass

import numpy as np

from onethinker_jax.data_pipeline.shapes.stamps import shape_stamp, text_stamp
from onethinker_jax.data_pipeline.worlds.stage import Actor, Stage

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


@dataclass(frozen=True)
class Shape(Actor):
    """One object: a coloured shape; `size` says its `radius` (pixels) in a word."""

    colour: str
    shape: str
    size: str
    radius: int

    @property
    def name(self) -> str:
        """Colour and shape, which no two objects of a scene share: "red circle"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Print:
    """Printed text: `corner` is the left top pixel of its ink, `height` the font's size in pixels."""

    text: str
    height: int
    corner: tuple[int, int]
    life: tuple[float, float]


@dataclass(frozen=True)
class Scene(Stage):
    """Shapes and prints on a flat background; its kind is "shapes", "words" or "sum"."""

    background: tuple[int, int, int]
    shapes: tuple[Shape, ...]
    prints: tuple[Print, ...] = ()

    @property
    def actors(self) -> tuple[Shape, ...]:
        """The shapes."""
        return self.shapes

    def labels(self, time: float) -> np.ndarray:
        """uint8 [H, W]: 0 background, i + 1 where shape i is the topmost, 255 where print is."""
        labels = np.zeros((self.height, self.width), np.uint8)
        for index, shape in enumerate(self.shapes):
            if shape.present(time):
                x, y = shape.centre(time)
                r = shape.radius
                labels[y - r : y + r + 1, x - r : x + r + 1][shape_stamp(shape.shape, r)] = index + 1
        for printed in self.prints:
            if printed.life[0] <= time <= printed.life[1]:
                ink, (x, y) = text_stamp(printed.text, printed.height), printed.corner
                labels[y : y + ink.shape[0], x : x + ink.shape[1]][ink] = 255
        return labels

    def whole_area(self, index: int) -> int:
        """The pixels of a shape's stamp."""
        return int(shape_stamp(self.shapes[index].shape, self.shapes[index].radius).sum())
