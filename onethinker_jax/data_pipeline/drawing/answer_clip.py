"""An answer about a video as a video: boxes, tracks, points and masks move on its frames.

Below the frame stand its time, a bar with the answer's span or key time on which a line moves with the frames, and the
question.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from onethinker_jax.data_pipeline.drawing.answer_picture import LEAST_WIDTH, MARGIN, drawn_width, stacked
from onethinker_jax.data_pipeline.drawing.captions import FAINT, INK, caption, labelled
from onethinker_jax.data_pipeline.drawing.draw import Annotations, annotations_at, centre, draw
from onethinker_jax.data_pipeline.drawing.mp4_file import write_mp4
from onethinker_jax.data_pipeline.drawing.time_bar import (
    LANE_BOTTOM,
    LANE_TOP,
    TimeBar,
    bar_length,
    is_named,
)
from onethinker_jax.data_pipeline.drawing.views import Masks
from onethinker_jax.data_pipeline.media.decoding import Video
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.rewards.answers import Box, Point, StructuredAnswer

CLIP_FPS, CLIP_FRAMES = 15.0, 360
"""Frames a second of a clip, and most frames: those of a video longer than 24 s are farther apart."""

CLIP_BOUNDS = PixelBounds(1, 1, 2**19)
"""Pixels of a clip's frame: 960 x 540, say. A smaller one keeps its own, which are drawn larger."""

LARGEST = 960  # pixels of a drawn frame's longer side


def write_clip(
    path: Path,
    video: Video,
    annotations: StructuredAnswer,
    masks: Masks | None = None,
    *,
    question: str,
) -> None:
    """Writes the frames of `video` with the answer on them, each on screen as long as there, as an MP4.

    Args:
        path: the file; an older one is replaced.
        video: of the record that was asked about; with `masks`, the very frames that these were made on.
        annotations: the answer.
        masks: made from its box and points.
        question: what was asked.

    Raises EncoderError: PyAV has no H.264 encoder.
    """
    times = [float(time) for time in video.timestamps]
    write_mp4(path, clip_pictures(video, annotations, masks, question=question), times, video.duration)


def clip_pictures(
    video: Video, annotations: StructuredAnswer, masks: Masks | None = None, *, question: str
) -> Iterator[Image.Image]:
    """The clip's pictures, one a frame, all of one size with even sides."""
    times = [float(time) for time in video.timestamps]
    marks = sorted(annotations.boxes) if masks is None else masks.times
    below: list[Image.Image] = []
    bar = TimeBar(bar_length(video.duration, times), LEAST_WIDTH)
    for frame, time in zip(video.frames, times, strict=True):
        here = annotations_at(annotations, time, times, masks.near(time) if masks else None)
        if annotations.boxes:
            box, track = moving(annotations.boxes, time)
            here = replace(here, box=box, track=track)
        cell = draw(frame, Annotations(), here, drawn_width(frame, LARGEST))
        cell = labelled(cell, time, is_named(annotations, time, times))
        width = max(LEAST_WIDTH, cell.width)
        if not below:
            bar = TimeBar(bar.length, width)
            below = [bar.picture(annotations, marks), caption(question, width, FAINT)]
        whole = stacked([cell, *below], width)
        at, top = MARGIN + bar.column(time), 2 * MARGIN + cell.height
        ImageDraw.Draw(whole).rectangle((at - 1, top + LANE_TOP - 6, at + 1, top + LANE_BOTTOM + 6), fill=INK)
        yield _even(whole)


def moving(boxes: Mapping[int, Box], time: float) -> tuple[Box | None, list[Point]]:
    """The box at a time, and the way of its centre up to there.

    A box moves in a straight line between two seconds that follow each other and both have one. Otherwise that of a
    second stays for half a second before it and after it.
    """
    before, nearest = math.floor(time), math.floor(time + 0.5)
    share = time - before
    if share > 0 and before in boxes and before + 1 in boxes:
        x1, y1, x2, y2 = (
            one + share * (other - one) for one, other in zip(boxes[before], boxes[before + 1], strict=True)
        )
        box = x1, y1, x2, y2
        return box, [*_centres(boxes, before), centre(box)]
    return boxes.get(nearest), _centres(boxes, nearest) if nearest <= max(boxes) else []


def _centres(boxes: Mapping[int, Box], last: int) -> list[Point]:
    return [centre(box) for second, box in sorted(boxes.items()) if second <= last]


def _even(picture: Image.Image) -> Image.Image:
    """The picture with a column and a row more where those are odd: 4:2:0 has one colour for two by two pixels."""
    width, height = picture.size
    if width % 2 == 0 and height % 2 == 0:
        return picture
    even = Image.new("RGB", (width + width % 2, height + height % 2), picture.getpixel((0, 0)))
    even.paste(picture, (0, 0))
    return even
