"""What a back end of the reward service is: what it is made with, what it is given, and what it gives back.

A back end is a small class that meets one of the two protocols below, `TextBackend` and `MaskBackend`. Which there
are is in `table.py`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from onethinker_jax.errors import UserError
from onethinker_jax.rewards.backends.judge_settings import VerifierSettings


class ItemError(ValueError):
    """One item of a call is malformed; the others are not affected."""


class BackendError(UserError):
    """A back end cannot be made as asked; the message is one line for the user."""


DTYPES = ("float32", "bfloat16", "float16")
NORMALISATIONS = ("raw", "released", "sigmoid")


@dataclass(frozen=True)
class BackendSettings:
    """What a back end is made with; one without weights uses none of it.

    `model` is the directory or file of its weights, `device` is `cpu`, `cuda` or `cuda:N`, `dtype` one of
    `DTYPES`, `normalisation` one of `NORMALISATIONS` (see `normalisation.py`), `judge` the endpoint of a verifier.
    Raises BackendError.
    """

    model: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"
    normalisation: str = "raw"
    judge: VerifierSettings = field(default_factory=VerifierSettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise BackendError(f"unknown device {self.device!r}: cpu, cuda or cuda:N")
        for name, known in (("dtype", DTYPES), ("normalisation", NORMALISATIONS)):
            if getattr(self, name) not in known:
                raise BackendError(f"unknown {name} {getattr(self, name)!r}: one of {', '.join(known)}")

    def weights(self, backend: str) -> Path:
        """`model`; raises BackendError where there is none, or where nothing is."""
        if self.model is None:
            raise BackendError(f"the back end {backend} needs weights: name their directory or file")
        if not self.model.exists():
            raise BackendError(f"the back end {backend} finds no weights: {self.model} does not exist")
        return self.model


@dataclass(frozen=True)
class TextItem:
    """An open-ended answer to be scored: the question, the reference answer and the policy's.

    Items of one prompt belong together where scores are normalised by group; `group` tells two prompts apart
    that ask the same and have the same reference, about different media.
    """

    question: str
    reference: str
    answer: str
    group: str = ""


@dataclass(frozen=True)
class MaskPrompt:
    """A box (x1, y1, x2, y2) and points (x, y) in 0–1000 of the frame's own width and height.

    Raises ItemError for a wrong count of numbers or one that is not finite. Coordinates outside 0–1000
    are clipped; a box that covers no pixel is allowed and prompts an empty mask.
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

    @property
    def point_count(self) -> int:
        """The number of points, of both kinds together."""
        return len(self.positive_points) + len(self.negative_points)

    def pixels(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Box float64 [4], positive [n, 2] and negative [m, 2] points, in pixels of an H×W frame."""
        scale = np.array([width, height], dtype=np.float64) / 1000.0
        box = np.clip(np.array(self.box, dtype=np.float64), 0.0, 1000.0) * np.tile(scale, 2)
        positive, negative = (
            np.clip(np.array(points, dtype=np.float64).reshape(-1, 2), 0.0, 1000.0) * scale
            for points in (self.positive_points, self.negative_points)
        )
        return box, positive, negative

    def whole_box(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) in whole pixels of an H×W frame, None where that covers none."""
        left, top, right, bottom = (int(value) for value in np.rint(self.pixels(height, width)[0]))
        return (left, top, right, bottom) if right > left and bottom > top else None


@dataclass(frozen=True)
class MaskJob:
    """A prompt for frame `key_frame` of a video, uint8 [N, H, W, 3], or for an image, which is one frame.

    `sha256` is that of the pixels, for whoever knows it already. Raises ItemError for frames of another kind
    and for a key frame that is not there.
    """

    frames: np.ndarray
    prompt: MaskPrompt
    key_frame: int = 0
    video: bool = False
    sha256: bytes = b""

    def __post_init__(self) -> None:
        frames = self.frames
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ItemError(f"frames are uint8 [N, H, W, 3], not {frames.dtype} {list(frames.shape)}")
        if not self.video and len(frames) != 1:
            raise ItemError(f"an image is one frame, not {len(frames)}")
        if not 0 <= self.key_frame < len(frames):
            raise ItemError(f"key frame {self.key_frame} of a video of {len(frames)} frames")

    @property
    def medium(self) -> tuple[bool, bytes, tuple[int, ...]]:
        """Equal for jobs on one image or video, whichever arrays hold its pixels."""
        digest = self.sha256 or hashlib.sha256(np.ascontiguousarray(self.frames).data).digest()
        return self.video, digest, self.frames.shape


class TextBackend(Protocol):
    """Scores open-ended answers."""

    def score(self, items: Sequence[TextItem]) -> Sequence[float | Exception]:
        """One finite score an item, in order; the error of one that fails while the others do not."""
        ...


class MaskBackend(Protocol):
    """Makes masks from prompts."""

    def segment(self, jobs: Sequence[MaskJob]) -> list[np.ndarray]:
        """Masks, bool [N, H, W] a job, in order; each as it would be alone."""
        ...
