"""Answers drawn on pictures: boxes, points, tracks and mask outlines.

The truth is green, the prediction dashed orange. Boxes, points and outlines have a dark rim, so that they show on any
background, also on shapes of their own colour.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from onethinker_jax.rewards.answers import Box, Point, StructuredAnswer

TRUE = (34, 197, 94)
PREDICTED = (255, 140, 26)
RIM = (12, 16, 24)
JPEG_QUALITY = 88

Colour = tuple[int, int, int]
Pixel = tuple[float, float]


@dataclass(frozen=True)
class Annotations:
    """What one answer says about one frame; coordinates 0-1000 of the frame's width and height."""

    box: Box | None = None
    positive_points: Sequence[Point] = ()
    negative_points: Sequence[Point] = ()
    track: Sequence[Point] = ()  # centres of the boxes up to this frame, oldest first
    mask: np.ndarray | None = None  # bool [H, W] of the frame


def annotations_at(
    answer: StructuredAnswer | None,
    time: float | None,
    times: Sequence[float] = (),
    mask: np.ndarray | None = None,
) -> Annotations:
    """The part of an answer that belongs to the frame at `time` seconds; None: to a still picture.

    A box of second s belongs to the frames in [s - 0.5, s + 0.5); the box and points of a video's
    segmentation to the one of the frames shown, at `times`, that is nearest to the key frame.
    """
    if answer is None:
        return Annotations(mask=mask)
    if time is not None and answer.boxes:
        second = math.floor(time + 0.5)
        track = [centre(box) for s, box in sorted(answer.boxes.items()) if s <= second <= max(answer.boxes)]
        return Annotations(box=answer.boxes.get(second), track=track, mask=mask)
    key = answer.key_time
    if time is not None and key is not None and time != min(times, key=lambda t: abs(t - key)):
        return Annotations(mask=mask)
    return Annotations(answer.box, answer.positive_points, answer.negative_points, (), mask)


def draw(frame: np.ndarray, truth: Annotations, predicted: Annotations, width: int) -> Image.Image:
    """The frame, uint8 [H, W, 3], enlarged to about `width` pixels, with both answers on it.

    A frame wider than that is shrunk; smaller ones grow by whole factors, so that pixels stay square.
    """
    height_in, width_in = frame.shape[:2]
    factor = max(width // width_in, 1) if width_in <= width else width / width_in
    size = (round(width_in * factor), max(round(height_in * factor), 1))
    sampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    picture = Image.fromarray(np.ascontiguousarray(frame)).convert("RGB").resize(size, sampling)
    pen = ImageDraw.Draw(picture)
    stroke = max(round(size[0] / 110), 2)
    answers = ((truth, TRUE, False), (predicted, PREDICTED, True))
    # in layers, so that no answer's mask lies over another's points, and no negative point over a positive one
    for annotations, colour, _ in answers:
        if annotations.mask is not None:
            _draw_outline(picture, annotations.mask, colour, stroke)
    for annotations, colour, dashed in answers:
        _draw_track_and_box(pen, size, annotations, colour, dashed, stroke)
    for plus in (False, True):
        for annotations, colour, _ in answers:
            for point in annotations.positive_points if plus else annotations.negative_points:
                _draw_point(pen, _pixel(point, size), colour, stroke, plus)
    return picture


def _draw_track_and_box(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    annotations: Annotations,
    colour: Colour,
    dashed: bool,
    stroke: int,
) -> None:
    if len(annotations.track) > 1:
        path = [_pixel(point, size) for point in annotations.track]
        pen.line(path, fill=colour, width=max(stroke - 1, 1))
        for x, y in path:
            pen.ellipse((x - stroke, y - stroke, x + stroke, y + stroke), fill=colour)
    if annotations.box is not None:
        (left, top), (right, bottom) = _pixel(annotations.box[:2], size), _pixel(annotations.box[2:], size)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        sides = [side for a, b in pairwise(corners) for side in _pieces(a, b, dashed, stroke)]
        _lines(pen, sides, colour, stroke)


def _draw_point(pen: ImageDraw.ImageDraw, at: Pixel, colour: Colour, stroke: int, plus: bool) -> None:
    x, y = at
    radius = stroke * 2.6
    _disc(pen, at, radius, colour)
    arm, thick = radius * 0.62, max(stroke - 1, 2)
    pen.line((x - arm, y, x + arm, y), fill=RIM, width=thick)
    if plus:
        pen.line((x, y - arm, x, y + arm), fill=RIM, width=thick)


def _disc(pen: ImageDraw.ImageDraw, at: Pixel, radius: float, colour: Colour) -> None:
    x, y = at
    pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=RIM)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _lines(pen: ImageDraw.ImageDraw, lines: list[tuple[Pixel, Pixel]], colour: Colour, stroke: int) -> None:
    """All rims first, so that no rim crosses a line that is there already."""
    for fill, width in ((RIM, stroke + 2), (colour, stroke)):
        for a, b in lines:
            pen.line((*a, *b), fill=fill, width=width)


def _pieces(a: Pixel, b: Pixel, dashed: bool, stroke: int) -> list[tuple[Pixel, Pixel]]:
    """The line a to b, or its dashes: an odd number of equal steps, so that both corners are drawn."""
    length = math.dist(a, b)
    steps = 2 * max(round(length / (stroke * 7)), 1) + 1 if dashed else 1
    at = [(a[0] + (b[0] - a[0]) * i / steps, a[1] + (b[1] - a[1]) * i / steps) for i in range(steps + 1)]
    return [(at[i], at[i + 1]) for i in range(0, steps, 2)]


def _draw_outline(picture: Image.Image, mask: np.ndarray, colour: Colour, stroke: int) -> None:
    """The border of a mask as a line of `stroke` pixels over a light tint of the whole.

    The line lies inside the mask, and around one so small or thin that it would cover all of it.
    """
    inside = _resized(mask, picture.size)
    pixels = np.array(picture)
    pixels[inside] = (0.78 * pixels[inside] + 0.22 * np.array(colour)).astype(np.uint8)
    outer, inner = inside, _shrunk(inside, stroke)
    if not _shrunk(inner, 1).any():
        outer, inner = _grown(inside, stroke + 1), _grown(inside, 1)
    pixels[_grown(outer, 1) & ~outer | inner & ~_shrunk(inner, 1)] = RIM
    pixels[outer & ~inner] = colour
    picture.paste(Image.fromarray(pixels))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask in the picture's size (width, height), bool; no part of it is lost where that is smaller."""
    mask = np.asarray(mask, bool)
    (height, width), (columns, rows) = mask.shape, size
    sized = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    inside = np.asarray(sized) > 0
    if columns < width or rows < height:
        at_row, at_column = np.nonzero(mask)
        inside[at_row * rows // height, at_column * columns // width] = True
    return inside


def _shrunk(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask without the pixels nearer than `by` steps to its outside; the picture's edge is inside."""
    for _ in range(by):
        padded = np.pad(mask, 1, constant_values=True)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask with the pixels at most `by` steps from it."""
    return ~_shrunk(~mask, by)


def centre(box: Box) -> Point:
    """The middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _pixel(point: Sequence[float], size: tuple[int, int]) -> Pixel:
    """0-1000 to pixels; what a policy puts outside the picture is held at its edge."""
    x, y = (min(max(value, 0.0), 1000.0) / 1000 * (side - 1) for value, side in zip(point, size, strict=True))
    return x, y


def data_uri(picture: Image.Image) -> str:
    """The picture inside a URI, as PNG or JPEG, whichever is smaller."""
    best: tuple[str, bytes] | None = None
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": JPEG_QUALITY})):
        buffer = io.BytesIO()
        source = (
            picture.quantize(256, dither=Image.Dither.NONE) if kind == "png" and _few(picture) else picture
        )
        source.save(buffer, kind, **options)
        if best is None or buffer.tell() < len(best[1]):
            best = (kind, buffer.getvalue())
    assert best is not None
    return f"data:image/{best[0]};base64,{base64.b64encode(best[1]).decode()}"


def _few(picture: Image.Image) -> bool:
    """Whether a palette holds all its colours."""
    return picture.getcolors(256) is not None
