"""Boxes in pixels, as data sets have them, and the boxes of answers: [x1, y1, x2, y2] in whole 0-1000 of the frame."""

from collections.abc import Sequence
from typing import Any

from onethinker_jax.answer_forms import finite_numbers
from onethinker_jax.data_pipeline.media.decoding import MAX_PIXELS
from onethinker_jax.data_pipeline.sources.reading.rows import Row

Box = tuple[float, float, float, float]


def corners(value: Any) -> Box | None:
    """[x, y, width, height] as (x1, y1, x2, y2) in pixels; None: not four numbers, or without extent."""
    numbers = finite_numbers(list(value) if isinstance(value, tuple) else value, 4)
    if numbers is None or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def thousandths(box: Sequence[float], width: float, height: float) -> list[int] | None:
    """A box of corners in pixels, cut at the picture's edges, in thousandths; None: it lies outside the picture.

    A box too small for thousandths keeps the extent of one.
    """
    found = []
    for low, high, side in ((box[0], box[2], width), (box[1], box[3], height)):
        low, high = max(low, 0.0), min(high, float(side))
        if low >= high:
            return None
        first, last = round(1000 * low / side), round(1000 * high / side)
        if first == last:
            first = min(int(1000 * low / side), 999)
            last = first + 1
        found.append((first, last))
    (x1, x2), (y1, y2) = found
    return [x1, y1, x2, y2]


def resolution(row: Row) -> tuple[int, int]:
    """(width, height) of a row's columns of these names. Raises SourceError: that is no picture's size."""
    width, height = row.whole("width"), row.whole("height")
    for column, side in (("width", width), ("height", height)):
        if side <= 0:
            raise row.error(column, "must be positive", f", is {side}")
    if width * height > MAX_PIXELS:
        raise row.error("width and height", "are too large", f": {width} x {height}")
    return width, height
