"""The size in which pictures reach the model, and the resizing to it."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_MAX_ASPECT = 200


@dataclass(frozen=True)
class PixelBounds:
    """Sides are multiples of `factor`, height x width lies in `min_pixels` .. `max_pixels`."""

    factor: int
    min_pixels: int
    max_pixels: int

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """The picture, uint8 [H, W, 3], in the size that `smart_resize` gives, by Pillow's bicubic filter.

        Raises:
            ValueError: one side is more than 200 times the other.
        """
        height, width, _ = picture.shape
        size = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        if size == (height, width):
            return picture
        resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        return np.asarray(resized)


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Size near (height, width) with both sides multiples of `factor` and the area within bounds.

    The same rule as Qwen2-VL's and Qwen3-VL's image processors: sides are rounded to the nearest multiple;
    if the area leaves the bounds, both sides are scaled by one factor and rounded towards the bounds.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ValueError(f"sides {height} x {width} differ by more than {_MAX_ASPECT} times")
    rounded = round(height / factor) * factor, round(width / factor) * factor
    area = rounded[0] * rounded[1]
    if area > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        shrunk = (max(factor, math.floor(s / shrink / factor) * factor) for s in (height, width))
        return next(shrunk), next(shrunk)
    if area < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        grown = (math.ceil(s * grow / factor) * factor for s in (height, width))
        return next(grown), next(grown)
    return rounded
