"""What is shown of a record: its pictures, the frames that its answer is about, its true boxes and masks.

Used by the page of a corpus (`check`) and by the gallery of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onethinker_jax.data_pipeline.media.reading.media_reader import MediaReader
from onethinker_jax.data_pipeline.media.resizing import PixelBounds
from onethinker_jax.data_pipeline.records.conversation import words_of
from onethinker_jax.data_pipeline.records.record import Record
from onethinker_jax.rewards.answers import StructuredAnswer, parse_structured, unwrap_answer
from onethinker_jax.rewards.metrics import decode_rle

MAX_FRAMES = 8


@dataclass(frozen=True)
class Masks:
    """Masks of one object: `masks` bool [N, H, W] at `times` seconds; an image's has the one time 0."""

    times: Sequence[float]
    masks: np.ndarray

    def near(self, time: float | None) -> np.ndarray | None:
        """The mask of the nearest time, bool [H, W]; None if that is more than half a second away."""
        if len(self.times) == 0:
            return None
        index = int(np.argmin(np.abs(np.asarray(self.times) - (time or 0.0))))
        return self.masks[index] if abs(self.times[index] - (time or 0.0)) <= 0.5 else None


@dataclass(frozen=True)
class View:
    """A record's media and true answer, ready to be drawn."""

    question: str  # without placeholders
    frames: list[np.ndarray]  # uint8 [H, W, 3] each: the images, or frames of the video
    times: tuple[float, ...] | None  # seconds of each frame; None: images
    duration: float  # seconds; 0: images
    annotations: StructuredAnswer | None  # the true answer, where the task has boxes, points or times
    masks: Masks | None


def view_record(
    record: Record,
    *others: StructuredAnswer | None,
    fps: float = 2.0,
    max_frames: int = 128,
    media: MediaReader | None = None,
    bounds: PixelBounds | None = None,
    every_frame: bool = False,
) -> View:
    """Loads a record's media: all images, or at most `MAX_FRAMES` frames of the first video.

    Frames are those of the seconds and key times that the true answer, or one of the others, names, out of at
    most `max_frames` sampled at `fps`; with `every_frame` they are all of these. `media` reads them, in the size that
    `bounds` allow; by default this process does, in the file's own size.

    Raises MediaError when an image or video cannot be read.
    """
    media = media or MediaReader()
    annotations = parse_structured(unwrap_answer(record.answer), record.problem_type, record.data_type)
    if record.videos:
        video = media.video(record.videos[0], bounds, fps=fps, max_frames=max_frames)
        shown = (
            range(len(video.frames))
            if every_frame
            else _frames_to_show(video.timestamps, annotations, *others)
        )
        frames = [video.frames[i] for i in shown]
        times, duration = tuple(float(video.timestamps[i]) for i in shown), video.duration
    else:
        frames, times, duration = [media.image(path, bounds) for path in record.images], None, 0.0
    question = words_of(record.problem).strip()
    return View(question, frames, times, duration, annotations, _true_masks(record))


def _frames_to_show(times: np.ndarray, *answers: StructuredAnswer | None) -> list[int]:
    """Which frames: those of the seconds with boxes and of key times where the task has them, else evenly."""
    wanted = {float(second) for answer in answers if answer for second in answer.boxes}
    wanted |= {answer.key_time for answer in answers if answer and answer.key_time is not None}
    wanted = {time for time in wanted if times[0] - 0.5 <= time <= times[-1] + 0.5}
    nearest = {int(np.argmin(np.abs(times - time))) for time in wanted}
    if len(nearest) < 4:  # too few to tell what happens between
        nearest |= set(_evenly(list(range(len(times))), 6))
    return _evenly(sorted(nearest), MAX_FRAMES)


def _evenly(indices: list[int], count: int) -> list[int]:
    if len(indices) <= count:
        return indices
    return sorted({indices[round(i * (len(indices) - 1) / (count - 1))] for i in range(count)})


def _true_masks(record: Record) -> Masks | None:
    """The record's own masks; None if it has none."""
    found = record.segmentation
    return found and Masks(found.times, np.stack([decode_rle(rle) for rle in found.rles]))


def timeline_html(length: float, answers: Mapping[str, StructuredAnswer | None]) -> str:
    """A bar over a video's length (seconds) with the spans, or key times, of answers on it.

    `answers` are named "true" and "predicted"; the bar is "" if none of them has a time.
    """
    length = max(length, 1e-3)
    rows = []
    for name, annotations in answers.items():
        if annotations is None or (annotations.span is None and annotations.key_time is None):
            continue
        start, end = annotations.span if annotations.span is not None else (annotations.key_time or 0.0,) * 2
        label = f"{start:g}–{end:g} s" if annotations.span is not None else f"{start:g} s"
        left = 100 * min(max(start / length, 0.0), 1.0)
        wide = 100 * min(max((end - start) / length, 0.0), 1.0 - left / 100)
        kind = "span" if annotations.span is not None else "moment"
        rows.append(
            f'<div class="lane"><i class="{kind} {name}" title="{name}: {label}" '
            f'style="left:{left:.2f}%;width:{wide:.2f}%"></i></div>'
        )
    if not rows:
        return ""
    step = tick_step(length)
    ticks = "".join(
        f'<span style="left:{100 * i * step / length:.2f}%">{i * step:g} s</span>'
        for i in range(int(length / step) + 1)
    )
    return f'<div class="timeline">{"".join(rows)}<div class="ticks">{ticks}</div></div>'


def tick_step(length: float) -> float:
    """Seconds between the ticks of a bar over `length` seconds: round, and at most ten of them."""
    return next(s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1e9) if length / s <= 10)
