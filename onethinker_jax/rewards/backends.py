"""What the reward service runs: one back end for text, one for masks, chosen by name.

A back end is a small class that meets one of the two protocols below; `TEXT_BACKENDS` and `MASK_BACKENDS`
map a name to a function that makes it, and only that function imports what the back end needs. The two here
need no weights. A neural one is added with a line in its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class ItemError(ValueError):
    """One item of a call is malformed; the others are not affected."""


@dataclass(frozen=True)
class TextItem:
    """An open-ended answer to be scored: the question, the reference answer and the policy's."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class MaskPrompt:
    """A box (x1, y1, x2, y2) and points (x, y) in 0–1000 of the frame's own width and height.

    Raises ItemError for a wrong count of numbers or one that is not finite. Coordinates outside 0–1000
    are clipped; a box without area is allowed and prompts an empty mask.
    """

    box: tuple[float, ...]
    positive_points: tuple[tuple[float, ...], ...] = ()
    negative_points: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.box) != 4 or not all(math.isfinite(value) for value in self.box):
            raise ItemError(f"a box is four finite numbers, not {self.box!r:.100}")
        for point in (*self.positive_points, *self.negative_points):
            if len(point) != 2 or not all(math.isfinite(value) for value in point):
                raise ItemError(f"a point is two finite numbers, not {point!r:.100}")

    def pixels(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Box float64 [4], positive [n, 2] and negative [m, 2] points, in pixels of an H×W frame."""
        scale = np.array([width, height], dtype=np.float64) / 1000.0
        box = np.clip(np.array(self.box, dtype=np.float64), 0.0, 1000.0) * np.tile(scale, 2)
        positive, negative = (
            np.clip(np.array(points, dtype=np.float64).reshape(-1, 2), 0.0, 1000.0) * scale
            for points in (self.positive_points, self.negative_points)
        )
        return box, positive, negative


class TextBackend(Protocol):
    """Scores open-ended answers."""

    def score(self, items: Sequence[TextItem]) -> list[float]:
        """One score an item, in order."""
        ...


class MaskBackend(Protocol):
    """Makes masks from prompts."""

    def segment_image(self, image: np.ndarray, prompt: MaskPrompt) -> np.ndarray:
        """uint8 [H, W, 3] -> bool [H, W]."""
        ...

    def segment_video(self, frames: np.ndarray, key_frame: int, prompt: MaskPrompt) -> np.ndarray:
        """uint8 [N, H, W, 3], the prompt being for frame `key_frame` -> bool [N, H, W]."""
        ...


class Rouge:
    """Mean F-measure of ROUGE-1, -2 and -L; the question is not used."""

    def score(self, items: Sequence[TextItem]) -> list[float]:
        from onethinker_jax.rewards.metrics import mean_rouge

        return [mean_rouge(item.answer, item.reference) for item in items]


def _grabcut() -> MaskBackend:
    from onethinker_jax.rewards.grabcut import GrabCut

    return GrabCut()


TEXT_BACKENDS: dict[str, Callable[[], TextBackend]] = {"rouge": Rouge}
MASK_BACKENDS: dict[str, Callable[[], MaskBackend]] = {"grabcut": _grabcut}
