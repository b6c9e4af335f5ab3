"""The size in which pictures and frames reach the model, and the resizing to it.

Two rules of transformers' Qwen3-VL: of a picture by its own area, and of a video by the area of all its frames
together. OneThinker bounds the frames of a video one by one first (as qwen-vl-utils does) and then together, so
both may apply; the picture is resized once, to where the two lead.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_MAX_ASPECT = 200
_FRAMES_A_PATCH = 2


@dataclass(frozen=True)
class VideoTotal:
    """Bounds of height x width x frames of a whole video: Hugging Face's `size` of a video processor."""

    min_pixels: int
    max_pixels: int

    def __post_init__(self):
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"a video's total pixels must be 0 < min <= max, got {self.min_pixels} and {self.max_pixels}"
            )


@dataclass(frozen=True)
class PixelBounds:
    """Sides are multiples of `factor`, height x width of a picture or frame lies in `min_pixels` .. `max_pixels`.

    With a `total` the frames of a video are bounded together as well; with neither of the other two, only
    together, as by transformers' video processor alone.
    """

    factor: int
    min_pixels: int | None
    max_pixels: int | None
    total: VideoTotal | None = None

    def size(self, height: int, width: int, frames: int = 1) -> tuple[int, int]:
        """The size in which a picture, or each of a video's `frames`, reaches the model.

        Raises ValueError: one side is more than 200 times the other.
        """
        if self.min_pixels is not None and self.max_pixels is not None:
            height, width = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        if self.total is not None:
            height, width = smart_resize(
                height, width, self.factor, self.total.min_pixels, self.total.max_pixels, frames=frames
            )
        return height, width

    def fit(self, picture: np.ndarray, frames: int = 1) -> np.ndarray:
        """The picture, uint8 [H, W, 3], in that size, by `resize`.

        Raises ValueError: one side is more than 200 times the other.
        """
        height, width, _ = picture.shape
        return resize(picture, self.size(height, width, frames))


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [*size, 3] by Pillow's bicubic filter, rows before columns.

    Between the two passes values are rounded and cut to 8 bits, so their order counts at hard edges. Torch and
    Pillow 12.0 begin with the rows; Pillow 13.0 begins with whatever is cheaper, so it is asked twice.
    """
    height, width, _ = picture.shape
    if size == (height, width):
        return picture
    image = Image.fromarray(picture)
    if size[1] != width:
        image = image.resize((size[1], height), Image.Resampling.BICUBIC)
    if size[0] != height:
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int, *, frames: int | None = None
) -> tuple[int, int]:
    """Size near (height, width) with both sides multiples of `factor` and the area within bounds.

    The rule of Qwen2-VL's image and Qwen3-VL's video processor: sides are rounded to the nearest multiple; if
    the area leaves the bounds, both sides are scaled by one factor and rounded towards the bounds. With
    `frames`, the area is that of all frames of a video. To decide whether the area leaves the bounds, the rule rounds
    the number of frames to an even one (halves to even, as Python does); the scale is computed with the number as
    it is. A single frame is repeated and counts as two.

    Raises ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ValueError(f"sides {height} x {width} differ by more than {_MAX_ASPECT} times")
    count = 1 if frames is None else max(frames, _FRAMES_A_PATCH)
    even = 1 if frames is None else round(count / _FRAMES_A_PATCH) * _FRAMES_A_PATCH
    rounded = round(height / factor) * factor, round(width / factor) * factor
    area = even * rounded[0] * rounded[1]
    if area > max_pixels:
        shrink = math.sqrt(count * height * width / max_pixels)
        shrunk = (max(factor, math.floor(s / shrink / factor) * factor) for s in (height, width))
        return next(shrunk), next(shrunk)
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (count * height * width))
        grown = (math.ceil(s * grow / factor) * factor for s in (height, width))
        return next(grown), next(grown)
    return rounded
