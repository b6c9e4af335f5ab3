"""What a scene is, whatever its world draws it with: actors, where and when, and which of their pixels are seen.

An image is a scene of duration 0. Presence is closed at both ends: an actor with the life [1.5, 4.0] is in every
frame whose time t has 1.5 <= t <= 4.0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onethinker_jax.data_pipeline.worlds.english import sentence

MIN_VISIBLE = 0.5  # a question is asked about an actor only while at least this share of it is seen
PLACES = tuple(
    f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "middle", "right")
)
PLACES = (*PLACES[:4], "centre", *PLACES[5:])
"""The ninths of a frame, row by row."""


@dataclass(frozen=True, kw_only=True)
class Actor(ABC):
    """When an object is there (seconds, both ends included) and how it moves.

    It stands at `origin` (x, y of its centre, pixels) until `move[0]`, goes straight to `target` until
    `move[1]` and stays there. `role` says what the scene wanted it for: "anchor" (there throughout,
    moving), "visitor" (there for a part of the video) or "still".
    """

    life: tuple[float, float]
    origin: tuple[int, int]
    target: tuple[int, int]
    move: tuple[float, float]
    role: str = "still"

    @property
    @abstractmethod
    def name(self) -> str:
        """What questions call it."""

    @property
    def definite(self) -> str:
        """The name after its article: "the red star"."""
        return f"the {self.name}"

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


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A picture (`duration` 0) or a video (`duration` seconds at `fps` frames a second) of a `kind` of scene."""

    kind: str
    width: int
    height: int
    duration: float = 0.0
    fps: int = 0

    @property
    @abstractmethod
    def actors(self) -> Sequence[Actor]:
        """What questions can be about, by the numbers that `labels` has."""

    @abstractmethod
    def labels(self, time: float) -> np.ndarray:
        """uint8 [H, W]: i + 1 where actor i is seen at `time` seconds."""

    @abstractmethod
    def whole_area(self, index: int) -> int:
        """The pixels of an actor that nothing covers."""

    @property
    def data_type(self) -> str:
        """What records of the scene say: image or video."""
        return "video" if self.duration else "image"

    @property
    def times(self) -> list[float]:
        """Presentation time of every frame, seconds; [0.0] for an image."""
        return [i / self.fps for i in range(round(self.duration * self.fps))] if self.duration else [0.0]

    def visible_mask(self, index: int, time: float) -> np.ndarray:
        """Where an actor is seen at `time`, bool [H, W]; all False when it is away or covered."""
        return self.labels(time) == index + 1

    def visible_share(self, index: int, time: float) -> float:
        """Seen pixels over all pixels of an actor at `time`; 0 while it is away."""
        return float(self.visible_mask(index, time).sum() / self.whole_area(index))

    def well_seen(self, index: int, start: float, end: float) -> bool:
        """Whether at least MIN_VISIBLE of an actor is seen at every half second of the span that has a frame."""
        halves = [h / 2 for h in range(round(2 * start), round(2 * end) + 1) if h / 2 < self.duration]
        return all(self.visible_share(index, time) >= MIN_VISIBLE for time in halves)

    @property
    def whole_seconds(self) -> range:
        """The seconds 0, 1, … that have a frame."""
        return range(math.ceil(self.duration))


def place(scene: Stage, actor: Actor, time: float) -> str:
    """In words, which ninth of the frame holds the centre: one of `PLACES`."""
    x, y = actor.centre(time)
    column = min(2, 3 * x // scene.width)
    row = min(2, 3 * y // scene.height)
    return PLACES[3 * row + column]


def whereabouts(scene: Stage, actor: Actor, time: float = 0.0) -> str:
    """Which ninth of the frame an actor is in: "in the centre", "at the upper left"."""
    spot = place(scene, actor, time)
    return f"in the {spot}" if spot == "centre" else f"at the {spot}"


def place_sentence(scene: Stage, actor: Actor) -> str:
    """Where an actor is at the start: "The red star is in the centre."."""
    return f"{sentence(actor.definite)} is {whereabouts(scene, actor)}."


def clear_place(scene: Stage, actor: Actor, time: float = 0.0) -> bool:
    """Whether the centre is off the lines between the ninths by 4% of the frame or more."""
    x, y = actor.centre(time)
    return all(
        abs(v - third) >= 0.04 for v in (x / scene.width, y / scene.height) for third in (1 / 3, 2 / 3)
    )


def deeds(scene: Stage, actor: Actor) -> list[str]:
    """What an actor does, in order: "appears", "moves left", "vanishes"; "stays still" if nothing."""
    deeds = []
    if actor.life[0] > 0:
        deeds.append("appears")
    if actor.moves:
        deeds.append(f"moves {actor.direction}")
    if actor.life[1] < scene.duration:
        deeds.append("vanishes")
    return deeds or ["stays still"]
