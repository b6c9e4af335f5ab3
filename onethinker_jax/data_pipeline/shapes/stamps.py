"""The pixels of one shape and of one printed text, without antialiasing."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont


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
