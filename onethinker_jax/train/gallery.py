"""Held-out records as cards of the run's page: the media with both answers on them, and the text beside.

`gallery_item` makes an item from a record, a response and its score; the trainer needs nothing else. Masks
are optional: an image's, or a video's at given times, as the reward service makes them from box and points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from onethinker_jax.data_pipeline.media import load_image, load_video
from onethinker_jax.data_pipeline.records import Record, task_of
from onethinker_jax.rewards.answers import (
    StructuredAnswer,
    extract_answer,
    extract_thinking,
    parse_structured,
    unwrap_answer,
)
from onethinker_jax.rewards.score import Score, Variant, max_accuracy, max_overall
from onethinker_jax.train.drawing import data_uri, draw, marks_at

IMAGE_WIDTH, FRAME_WIDTH = 384, 288  # pixels that a picture and a film's frame are drawn at
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
class GalleryItem:
    """One record with a response to it."""

    task: str
    problem_id: int | str
    question: str
    options: tuple[str, ...]
    frames: list[np.ndarray]  # uint8 [H, W, 3] each: the images, or frames of the video
    times: tuple[float, ...] | None  # seconds of each frame; None: images
    duration: float  # seconds; 0: images
    response: str
    reasoning: str | None  # None: the response has no <think>…</think>
    answer: str | None  # None: no <answer>…</answer>
    truth: str
    predicted_marks: StructuredAnswer | None
    true_marks: StructuredAnswer | None
    score: Score
    best: tuple[float, float] = (1.0, 1.0)  # the largest overall reward and accuracy there are for the task
    stage: str = ""  # of training that the response comes from: "SFT", "RL"
    predicted_masks: Masks | None = None
    true_masks: Masks | None = None
    extra: dict[str, float] = field(default_factory=dict)  # further numbers to show: {"mask IoU": 0.81}


def gallery_item(
    record: Record,
    response: str,
    score: Score,
    *,
    variant: Variant = "paper",
    stage: str = "",
    masks: Masks | None = None,
    extra: dict[str, float] | None = None,
    fps: float = 2.0,
) -> GalleryItem:
    """An item with its media loaded, at most `MAX_FRAMES` frames of a video sampled at `fps`.

    `variant` is the one that `score` was computed with.

    Raises MediaError when an image or video cannot be read.
    """
    kind = record.problem_type, record.data_type
    answer, truth = extract_answer(response), unwrap_answer(record.answer)
    predicted_marks, true_marks = parse_structured(answer, *kind), parse_structured(truth, *kind)
    if record.videos:
        video = load_video(record.videos[0], fps=fps, max_frames=128)
        shown = _frames_to_show(video.timestamps, true_marks, predicted_marks)
        frames = [video.frames[i] for i in shown]
        times, duration = tuple(float(video.timestamps[i]) for i in shown), video.duration
    else:
        frames, times, duration = [load_image(path) for path in record.images], None, 0.0
    return GalleryItem(
        task=task_of(record),
        problem_id=record.problem_id,
        question=record.problem.replace("<image>", "").replace("<video>", "").strip(),
        options=record.options,
        frames=frames,
        times=times,
        duration=duration,
        response=response,
        reasoning=extract_thinking(response),
        answer=answer,
        truth=truth,
        predicted_marks=predicted_marks,
        true_marks=true_marks,
        score=score,
        best=(max_overall(*kind, variant), max_accuracy(*kind, variant)),
        stage=stage,
        predicted_masks=masks,
        true_masks=_true_masks(record),
        extra=extra or {},
    )


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
    """The record's own masks; None if it has none, or a video's without the frame rate that times them."""
    found = record.segmentation
    if found is None:
        return None
    if "counts" in found:
        return Masks([0.0], _decoded(found)[None])
    if not found.get("fps"):
        return None
    numbered = [(i, found["rle"][name]) for i, name in enumerate(found["frames"]) if name in found["rle"]]
    if not numbered:
        return None
    return Masks(
        [i / float(found["fps"]) for i, _ in numbered], np.stack([_decoded(rle) for _, rle in numbered])
    )


def _decoded(rle: dict) -> np.ndarray:
    """A COCO RLE, compressed or as a list of runs, as bool [H, W]."""
    height, width = (int(side) for side in rle["size"])
    plain: Any = {"size": [height, width], "counts": rle["counts"]}
    if isinstance(plain["counts"], list):
        plain = coco_mask.frPyObjects(plain, height, width)
    return coco_mask.decode(plain).astype(bool)


def card_html(item: GalleryItem) -> str:
    """The card of an item."""
    score = item.score
    stage = f'<span class="tag">{escape(item.stage)}</span>' if item.stage else ""
    media = _film(item) if item.times is not None else _pictures(item)
    options = "".join(f"<li>{escape(option)}</li>" for option in item.options)
    meters = _meter("accuracy", score.accuracy, item.best[1]) + "".join(
        _meter(name, value)
        for name, value in {"format": score.format, "structure": score.structure, **item.extra}.items()
    )
    if item.answer is None:
        answer = f'<span class="none">no answer tags</span> {escape(_short(item.response, 400))}'
    else:
        answer = escape(_short(item.answer, 700))
    reasoning = escape(_short(item.reasoning, 1200)) if item.reasoning else '<span class="none">none</span>'
    return (
        f'<article class="card" data-task="{escape(item.task)}" data-stage="{escape(item.stage)}" '
        f'data-reward="{score.overall:.4f}"><div class="media">{media}</div><div class="text">'
        f'<header><span class="task">{escape(item.task)}</span>{stage}'
        f'<span class="number">#{escape(str(item.problem_id))}</span>'
        f'<span class="reward" style="--good:{_share(score.overall, item.best[0]):.3f}">'
        f"{score.overall:.2f}</span></header>"
        f'<p class="question">{escape(item.question)}</p>'
        + (f'<ul class="options">{options}</ul>' if options else "")
        + f"<dl><dt>Reasoning</dt><dd class=think>{reasoning}</dd>"
        f'<dt class="predicted">Answer</dt><dd class="mono">{answer}</dd>'
        f'<dt class="true">Truth</dt><dd class="mono">{escape(_short(item.truth, 700))}</dd></dl>'
        f'<div class="meters">{meters}</div></div></article>'
    )


def _share(value: float, best: float) -> float:
    return min(max(value / best, 0.0), 1.0)


def _meter(name: str, value: float, best: float = 1.0) -> str:
    if not math.isfinite(value):
        return f"<div><span>{escape(name)}</span><b>–</b></div>"
    return (
        f"<div><span>{escape(name)}</span><b>{value:.2f}</b>"
        f'<i class="bar"><i style="width:{100 * _share(value, best):.0f}%"></i></i></div>'
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _picture(item: GalleryItem, frame: np.ndarray, time: float | None, width: int) -> str:
    """The frame with both answers on it, as a URI."""
    true_mask = item.true_masks.near(time) if item.true_masks else None
    predicted_mask = item.predicted_masks.near(time) if item.predicted_masks else None
    truth = marks_at(item.true_marks, time, item.times or (), true_mask)
    predicted = marks_at(item.predicted_marks, time, item.times or (), predicted_mask)
    return data_uri(draw(frame, truth, predicted, width))


def _pictures(item: GalleryItem) -> str:
    return "".join(
        f'<img alt="image {number} of record {escape(str(item.problem_id))}" '
        f'src="{_picture(item, frame, None, IMAGE_WIDTH)}">'
        for number, frame in enumerate(item.frames, 1)
    )


def _film(item: GalleryItem) -> str:
    cells = "".join(
        f'<figure><img alt="frame at {time:.1f} s" src="{_picture(item, frame, time, FRAME_WIDTH)}">'
        f"<figcaption>{time:.1f} s</figcaption></figure>"
        for frame, time in zip(item.frames, item.times or (), strict=True)
    )
    return f'<div class="film">{cells}</div>{_timeline(item)}'


def _timeline(item: GalleryItem) -> str:
    """A bar over the video's length with both spans, or both key times, on it; nothing if neither has any."""
    length = max(item.duration, *(item.times or (0.0,)), 1e-3)
    rows = []
    for name, marks in (("true", item.true_marks), ("predicted", item.predicted_marks)):
        if marks is None or (marks.span is None and marks.key_time is None):
            continue
        start, end = marks.span if marks.span is not None else (marks.key_time or 0.0,) * 2
        label = f"{start:g}–{end:g} s" if marks.span is not None else f"{start:g} s"
        left = 100 * min(max(start / length, 0.0), 1.0)
        wide = 100 * min(max((end - start) / length, 0.0), 1.0 - left / 100)
        kind = "span" if marks.span is not None else "moment"
        rows.append(
            f'<div class="lane"><i class="{kind} {name}" title="{name}: {label}" '
            f'style="left:{left:.2f}%;width:{wide:.2f}%"></i></div>'
        )
    if not rows:
        return ""
    step = next(s for s in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1e9) if length / s <= 10)
    ticks = "".join(
        f'<span style="left:{100 * i * step / length:.2f}%">{i * step:g} s</span>'
        for i in range(int(length / step) + 1)
    )
    return f'<div class="timeline">{"".join(rows)}<div class="ticks">{ticks}</div></div>'
